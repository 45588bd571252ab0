package io.gatun.bench.validate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class PostMortemTest {
    private static PostMortem of(String output) {
        return new PostMortem(new ByteArrayInputStream(output.getBytes(StandardCharsets.UTF_8)));
    }

    @Test
    void aFatalErrorOfTheVirtualMachine() {
        PostMortem dead = of("""
                noise
                #
                # A fatal error has been detected by the Java Runtime Environment:
                #
                #  SIGSEGV (0xb) at pc=0x00007f1c2d2f1a3c, pid=4711, tid=4712
                #
                # JRE version: some
                # Problematic frame:
                # C  [libgatun_vendor.so+0x1a3c]  run+0x1c
                #
                siginfo: si_signo: 11 (SIGSEGV), si_code: 2 (SEGV_ACCERR), si_addr: 0x00007f1c00001000
                """);
        assertEquals("SIGSEGV in [libgatun_vendor.so+0x1a3c]  run+0x1c", dead.cause(134));
        assertEquals(0x00007f1c00001000L, dead.address());
    }

    @Test
    void otherEnds() {
        assertEquals("SIGKILL", of("").cause(137));
        assertEquals("SIGABRT; it last printed: free(): invalid pointer", of("free(): invalid pointer\n\n").cause(134));
        assertEquals("the process ended with exit code 3; it last printed: bye", of("hello\nbye").cause(3));
        assertNull(of("").address());
    }
}
