/** Validation of every operator, on every device, against references in FP64; and the command line that runs it. */
module io.gatun.bench {
    requires com.fasterxml.jackson.databind;
    requires info.picocli;
    requires io.gatun;
    requires java.management;
    requires java.xml;
    requires me.tongfei.progressbar;
    requires org.apache.commons.numbers.gamma;
    requires static org.jspecify;

    opens io.gatun.bench.cli to info.picocli;
    opens io.gatun.bench.compare to com.fasterxml.jackson.databind, info.picocli;
    opens io.gatun.bench.report to com.fasterxml.jackson.databind;
    opens io.gatun.bench.validate to com.fasterxml.jackson.databind;
}
