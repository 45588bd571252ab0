package io.gatun.bench.compare;

import java.util.Optional;

/** How far two results of one operator on the same data may be apart. Each task derives it from its arithmetic. */
public sealed interface Agreement {
    /** The unit roundoff of FP32. */
    double UNIT = 0x1p-24;
    /** How far two roundings of one number to BF16 may be apart, relative to it. */
    double BF16_STEP = 0x1p-7;

    /** Why the results do not agree, or empty. */
    Optional<String> disagreement(float[] ours, float[] theirs);

    /** Each element within an absolute bound and a part of its own magnitude. */
    record Elements(double absolute, double relative) implements Agreement {
        @Override
        public Optional<String> disagreement(float[] ours, float[] theirs) {
            if (ours.length != theirs.length) {
                return Optional.of(ours.length + " elements against " + theirs.length);
            }
            int worst = -1;
            double furthest = 1;
            for (int i = 0; i < ours.length; i++) {
                double ratio = ratio(ours[i], theirs[i]);
                if (ratio > furthest) {
                    furthest = ratio;
                    worst = i;
                }
            }
            return worst < 0
                    ? Optional.empty()
                    : Optional.of("element " + worst + " is " + ours[worst] + " against " + theirs[worst]
                            + ", %.3g times as far as rounding explains".formatted(furthest));
        }

        /** The distance in units of the bound; what is not finite agrees with nothing but its equal. */
        private double ratio(float ours, float theirs) {
            if (ours == theirs) {
                return 0;
            }
            double distance = Math.abs((double) ours - theirs);
            double bound = absolute + relative * Math.max(Math.abs(ours), Math.abs(theirs));
            return Double.isFinite(distance) ? distance / bound : Double.POSITIVE_INFINITY;
        }
    }

    /** Rows whose directions agree. */
    record Cosine(int size, double least) implements Agreement {
        @Override
        public Optional<String> disagreement(float[] ours, float[] theirs) {
            if (ours.length != theirs.length || ours.length % size != 0) {
                return Optional.of(ours.length + " elements against " + theirs.length);
            }
            for (int row = 0; row < ours.length; row += size) {
                double product = 0;
                double first = 0;
                double second = 0;
                for (int i = row; i < row + size; i++) {
                    product += (double) ours[i] * theirs[i];
                    first += (double) ours[i] * ours[i];
                    second += (double) theirs[i] * theirs[i];
                }
                double cosine = product / Math.sqrt(first * second);
                if (!(cosine >= least)) {
                    return Optional.of("the cosine of row " + row / size + " is " + cosine + ", expected " + least);
                }
            }
            return Optional.empty();
        }
    }
}
