package io.gatun.bench.report;

import org.jspecify.annotations.Nullable;

/**
 * What one case gave on one device.
 *
 * @param name the case's line, or empty for a device that is not there
 * @param check what was looked at: {@code value} for results and everything around them, or {@code refuse},
 *     {@code leak}, {@code concurrent}, {@code time}
 * @param operator the operator, or {@code sparse} for a chain of some
 * @param types the types of its operands, as {@code int8 f32->f32}
 * @param device the device's name
 * @param verdict what was shown
 * @param detail why the verdict is not a pass, or empty
 * @param kernel the kernel that ran, those of a chain with blanks between them, or empty
 * @param ratio the worst error as a part of its tolerance: above 1 fails
 * @param error the absolute error of that element
 * @param tolerance the tolerance of that element
 * @param time how long it took, or null where nothing was timed
 */
public record Outcome(String name, String check, String operator, String types, String device, Verdict verdict,
        String detail, String kernel, double ratio, double error, double tolerance, @Nullable Timing time) {

    /** A device that is not there. */
    public static Outcome notAvailable(String device, String why) {
        return new Outcome("", "", "", "", device, Verdict.NOT_AVAILABLE, why, "", 0, 0, 0, null);
    }
}
