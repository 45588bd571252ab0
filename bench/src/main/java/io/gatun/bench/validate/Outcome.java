package io.gatun.bench.validate;

/**
 * What one case gave on one device.
 *
 * @param name the case's line, or empty for a device that is not there
 * @param family the operator
 * @param types the types of its operands
 * @param device the device's name
 * @param verdict what was shown
 * @param ratio the worst error as a part of its tolerance
 * @param error the absolute error of that element
 * @param tolerance the tolerance of that element
 * @param kernel the kernel that ran, or empty
 * @param milliseconds the time of the one run, or 0
 * @param detail why the verdict is not a pass, or empty
 */
public record Outcome(String name, String family, String types, String device, Verdict verdict, double ratio,
        double error, double tolerance, String kernel, double milliseconds, String detail) {

    static Outcome of(Case test, String device, Verdict verdict, String kernel, String detail) {
        return new Outcome(test.name(), test.family(), test.types(), device, verdict, 0, 0, 0, kernel, 0, detail);
    }

    static Outcome notAvailable(String device, String why) {
        return new Outcome("", "", "", device, Verdict.NOT_AVAILABLE, 0, 0, 0, "", 0, why);
    }
}
