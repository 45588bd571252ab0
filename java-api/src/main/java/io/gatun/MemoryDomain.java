package io.gatun;

/**
 * What memory of a {@link MemoryPool} is for. Each domain has slabs, a limit and statistics of its own, so that blocks
 * of different lifetimes do not lie between each other, and the peak of one leaves no holes in another.
 */
public enum MemoryDomain {
    /** Weights of a model: allocated once, kept. */
    WEIGHTS,
    /** Inputs, outputs and intermediate results of a step or request. The domain of all that names none. */
    ACTIVATIONS,
    /** Keys and values of earlier tokens. */
    KV_CACHE,
    /** Gradients of a training step. */
    GRADIENTS,
    /** State of an optimizer: moments, master weights. */
    OPTIMIZER,
    /** Scratch memory. */
    WORKSPACE
}
