/**
 * AI kernels on memory that Java owns.
 *
 * <p>An operator is described once and becomes a {@linkplain io.gatun.Plan plan}: its arguments are checked, a kernel
 * is chosen and the scratch memory is known. A run executes the plan on a {@linkplain io.gatun.Stream stream} with the
 * {@linkplain io.gatun.Tensor tensors} of one call, which may have fewer rows than the plan; it allocates nothing on
 * the Java heap.
 *
 * {@snippet :
 * try (Device device = Device.open("cpu");
 *      Stream stream = device.newStream();
 *      MemoryPool pool = MemoryPool.of(device)) {
 *     Tensor x = pool.tensor(DType.F32, 128, 384);
 *     Tensor y = pool.tensor(DType.F32, 128, 384);
 *     try (Softmax.Plan plan = Softmax.of().plan(device, x.spec(), y.spec())) {
 *         plan.run(stream, x, y);
 *         stream.synchronize();
 *     }
 * }
 * }
 *
 * <p>Rules that hold for the whole package:
 * <ul>
 *   <li>Objects with {@code close()} own something native. They may be used from any thread; a stream serves one thread
 *       at a time, and a second one gets an {@link java.lang.IllegalStateException}. Use after close is an
 *       {@link java.lang.IllegalStateException} that names the object; closing twice is harmless. Closing while a run
 *       is inside is an {@link java.lang.IllegalStateException} and closes nothing.
 *   <li>What is forgotten is closed once the garbage collector finds it. With {@code -Dio.gatun.leaks=true} it is
 *       reported, with the place where it was opened.
 *   <li>Specs, builders, infos and tensors are immutable values that own nothing.
 *   <li>A wrong argument is an {@link java.lang.IllegalArgumentException} whose message names the argument, its value
 *       and what was expected; outputs are then untouched. What a device does not serve is an
 *       {@link java.lang.UnsupportedOperationException}; what is not there is a {@link io.gatun.NotAvailableException};
 *       any other failure is a {@link io.gatun.GatunException}. A null argument that is not marked as nullable is a
 *       {@link java.lang.NullPointerException}.
 *   <li>Sizes and strides count elements and are 64-bit.
 * </ul>
 */
@NullMarked
package io.gatun;

import org.jspecify.annotations.NullMarked;
