/** Validation of every operator, on every device, against references in FP64; and the command line that runs it. */
module io.gatun.bench {
    requires io.gatun;
    requires info.picocli;
    requires static org.jspecify;

    opens io.gatun.bench.cli to info.picocli;
}
