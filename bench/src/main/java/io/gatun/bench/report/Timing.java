package io.gatun.bench.report;

import org.jspecify.annotations.Nullable;

/**
 * How long the runs of a case took on one device, from the call until the stream was synchronized.
 *
 * @param runs the number of warm runs
 * @param firstMs milliseconds of the first run, which may grow workspace
 * @param warmMs the median of the warm runs: operands as the run before left them in the caches
 * @param lowMs the first quartile of the warm runs
 * @param highMs their third quartile
 * @param coldMs the median of runs on operands that are in no cache, or null where none was made
 * @param gflops operations of the plan per second of the median warm run, in 10<sup>9</sup>; 0 where the run is not as
 *     large as the plan
 * @param gbps compulsory memory traffic per second of the median warm run, in 10<sup>9</sup> bytes; 0 likewise
 * @param roofline the time that the device's measured ceilings allow, as a part of {@code coldMs} where memory bounds
 *     it and that was measured, else of {@code warmMs}; null where there are none
 * @param bound which of the ceilings allows no less time, {@code compute} or {@code memory}; null where there are none
 */
public record Timing(int runs, double firstMs, double warmMs, double lowMs, double highMs, @Nullable Double coldMs,
        double gflops, double gbps, @Nullable Double roofline, @Nullable String bound) {}
