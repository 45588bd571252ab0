package io.gatun;

/**
 * What a plan says of itself.
 *
 * @param kernel the chosen kernel, such as {@code cpu.avx2.gemm.int8}
 * @param operator {@code gemm}, {@code attention}, {@code norm}, {@code softmax}, {@code activation}, {@code merge},
 *     {@code rope}, {@code select}, {@code route}, {@code mix}, {@code glu}, {@code conv}, {@code pooling} or
 *     {@code fake_quantize}
 * @param precision the types that it is for, of tensors and of packed weights, such as {@code a BF16, weights S8, out F32}: what a
 *     {@link Precision} or the caller chose
 * @param flops the operations of a run at the plan's shapes; a multiply-add is two
 * @param bytes the least memory traffic of such a run: each input read and each output written once
 * @param workspaceBytes scratch memory that a stream holds for the plan
 * @param blocks attention: blocks of keys that tiles of queries visit at the plan's shapes, with every array of the run
 *     taken to hide nothing but what lies outside of the window; else 0
 */
public record PlanInfo(
        String kernel, String operator, String precision, double flops, double bytes, long workspaceBytes, long blocks) {}
