/**
 * The specification of every operator as plain loops in FP64, with the error that FP32 arithmetic may make of it.
 *
 * <p>A reference takes its operands as {@code float[]} (values that the operand's type holds exactly) and gives an
 * {@link io.gatun.bench.reference.Expected}: the value, a bound on the error of any careful FP32 computation, and the
 * result of the naive one. The bounds are first-order forward error analysis (Higham, Accuracy and Stability of
 * Numerical Algorithms, chapters 2 to 4), with the constants stated where they are used:
 *
 * <ul>
 *   <li>{@code u} is 2<sup>-24</sup>, half the distance from 1 to the next FP32 number. An operation rounds once:
 *       relative error at most u.
 *   <li>A sum of n terms, in any order and with or without fused multiply-add, errs by at most n u &Sigma;|term|.
 *   <li>An elementary function (exp, tanh, erf, log, and a square root with its division) errs by at most 4 u
 *       relatively, its argument taken as exact.
 *   <li>Numbers below 2<sup>-126</sup> that an exponential gives may be flushed to zero, and so may BF16 operands.
 * </ul>
 *
 * <p>The rounding of the output to its own type is not part of a bound: who compares adds it.
 */
@NullMarked
package io.gatun.bench.reference;

import org.jspecify.annotations.NullMarked;
