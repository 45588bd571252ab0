package io.gatun.bench.validate;

import io.gatun.Backend;
import io.gatun.DType;
import io.gatun.DeviceInfo;
import io.gatun.Gatun;
import io.gatun.GatunException;
import io.gatun.NotAvailableException;
import io.gatun.bench.report.Outcome;
import io.gatun.bench.report.Report.BackendEntry;
import io.gatun.bench.report.Report.DeviceEntry;
import io.gatun.bench.report.Report.Support;
import io.gatun.bench.validate.Case.Examination;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import org.jspecify.annotations.Nullable;

/**
 * The process in which a backend runs: it does what it is told through a socket, until that is closed. Whatever the
 * backend's library does to this process, the one that directs it goes on.
 */
final class Worker {
    /** References take as long as runs do: those of the case after the one that runs are computed meanwhile. */
    private record Ahead(String line, Future<Examination> examination) {}

    private final Writer out;
    private final ExecutorService preparing =
            Executors.newSingleThreadExecutor(Thread.ofPlatform().daemon().name("references").factory());
    private @Nullable Ahead ahead;
    private @Nullable Validation validation;

    private Worker(Writer out) {
        this.out = out;
    }

    /** Connects to the socket that is the only argument. */
    public static void main(String[] args) throws IOException, InterruptedException {
        SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
        channel.connect(UnixDomainSocketAddress.of(args[0]));
        BlockingQueue<Message> messages = new LinkedBlockingQueue<>();
        Thread reader = new Thread(() -> read(channel, messages), "messages");
        reader.setDaemon(true);
        reader.start();
        Worker worker = new Worker(Channels.newWriter(channel, StandardCharsets.UTF_8));
        while (worker.obey(messages.take())) {
            // the next message
        }
        Runtime.getRuntime().halt(0); // whatever threads and exit handlers a backend has left
    }

    /** Hands on messages, and ends the process when there will be no more: a run may hang in native code. */
    private static void read(SocketChannel channel, BlockingQueue<Message> messages) {
        try (BufferedReader in = new BufferedReader(Channels.newReader(channel, StandardCharsets.UTF_8))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                messages.add(Message.parse(line));
            }
        } catch (IOException e) {
            e.printStackTrace();
        }
        Runtime.getRuntime().halt(1);
    }

    private synchronized void send(Message message) {
        try {
            out.write(message.text() + "\n");
            out.flush();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Does what a message says, and returns whether there may be another. */
    private boolean obey(Message message) {
        switch (message) {
            case Message.Open open -> send(open(open));
            case Message.Examine examine -> {
                examine(examine);
                send(new Message.Done());
            }
            case Message.Close _ -> {
                if (validation != null) {
                    validation.close();
                }
                send(new Message.Done());
                return false;
            }
            default -> throw new IllegalArgumentException("unexpected: " + message);
        }
        return true;
    }

    private Message open(Message.Open open) {
        try {
            if (open.library() != null) {
                Gatun.loadBackend(Path.of(open.library()));
            }
            Validation opened = Validation.open(open.device(), open.threads());
            validation = opened;
            List<DeviceEntry> devices = new ArrayList<>();
            opened.subjects().forEach(subject -> devices.add(entry(subject.device().info())));
            opened.missing().forEach(info -> devices.add(entry(info)));
            Set<String> used = Set.copyOf(devices.stream().map(DeviceEntry::backend).toList());
            List<BackendEntry> backends = Gatun.backends().stream()
                    .filter(backend -> used.contains(backend.name()))
                    .map(Worker::entry)
                    .toList();
            return new Message.Opened(Gatun.version(), Gatun.abiVersion(), backends, devices, claims(opened));
        } catch (NotAvailableException e) {
            return new Message.Refused(String.valueOf(e.getMessage()));
        } catch (GatunException e) {
            return new Message.Refused(e.toString());
        }
    }

    private static DeviceEntry entry(DeviceInfo info) {
        return new DeviceEntry(info.name(), info.name().replaceFirst(":.*", ""), info.description(), info.available(),
                info.reason(), info.threads(), info.hostMemory(), info.memoryBytes(), Map.of());
    }

    private static BackendEntry entry(Backend backend) {
        Path path = backend.path();
        return new BackendEntry(backend.name(), backend.version(), backend.abiVersion(),
                path == null ? "" : path.toString(), path == null ? "" : sha256(path), backend.available(),
                backend.reason());
    }

    private static String sha256(Path file) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file));
            return HexFormat.of().formatHex(hash);
        } catch (IOException e) {
            return "";
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every Java platform has SHA-256", e);
        }
    }

    private static List<Support> claims(Validation validation) {
        List<Support> claims = new ArrayList<>();
        for (Subject subject : validation.subjects()) {
            for (Claims.Kind kind : Claims.KINDS) {
                for (DType dtype : kind.dtypes()) {
                    claims.add(new Support(subject.name(), kind.name(), Claims.name(dtype),
                            Claims.of(subject.device(), kind, dtype), 0, 0, 0, ""));
                }
            }
        }
        return claims;
    }

    /** What was computed while the case before ran, if it is for this one. */
    private Examination prepared(Case test) {
        Ahead begun = ahead;
        ahead = null;
        if (begun == null || !begun.line().equals(test.name())) {
            return test.prepare();
        }
        try {
            return begun.examination().get();
        } catch (ExecutionException e) {
            throw GuardedMemory.rethrow(e.getCause());
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private void examine(Message.Examine examine) {
        Validation opened = validation;
        if (opened == null) {
            throw new IllegalStateException("nothing is open");
        }
        Set<String> devices = Set.copyOf(examine.devices());
        Case test = Case.parse(examine.line());
        Examination examination = prepared(test);
        String next = examine.next();
        if (next != null && !test.alone()) {
            ahead = new Ahead(next, preparing.submit(() -> Case.parse(next).prepare()));
        }
        send(new Message.Begins());
        Set<Operand.Region> told = new HashSet<>();
        opened.run(test, examination, devices::contains, new Validation.Listener() {
            @Override
            public void operands(List<Operand.Region> regions) {
                if (told.addAll(regions)) {
                    send(new Message.Operands(regions));
                }
            }

            @Override
            public void outcome(Outcome outcome) {
                Map<String, Double> limits = opened.subjects().stream()
                        .filter(subject -> subject.name().equals(outcome.device()))
                        .findFirst()
                        .map(Subject::knownLimits)
                        .orElse(Map.of());
                send(new Message.Ended(outcome, limits));
            }
        });
    }
}
