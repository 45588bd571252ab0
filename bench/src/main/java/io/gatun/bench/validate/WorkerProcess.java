package io.gatun.bench.validate;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * A {@link Worker} in a process of its own, as the process that directs it sees it. It ends when this process does,
 * however that comes about: its end of the socket is closed then.
 */
final class WorkerProcess implements AutoCloseable {
    private static final Duration START = Duration.ofSeconds(60);
    private static final List<String> PASSED_ON = List.of("io.gatun.native.path", "io.gatun.cache");

    /** The worker's process has ended. */
    static final class Died extends Exception {
        private static final long serialVersionUID = 1;

        Died(String how) {
            super(how);
        }
    }

    /** The worker gave no answer in time. */
    static final class Late extends Exception {
        private static final long serialVersionUID = 1;

        Late(Duration timeout) {
            super("no answer for " + timeout.toMillis() / 1000.0 + " s");
        }
    }

    private final Process process;
    private final PostMortem postMortem;
    private final BlockingQueue<Object> received = new LinkedBlockingQueue<>();
    private @Nullable SocketChannel channel;
    private @Nullable Writer out;

    private WorkerProcess(Process process) {
        this.process = process;
        this.postMortem = new PostMortem(process.getInputStream());
    }

    /** Starts a worker, whose virtual machine optimises nothing when all it does is {@code brief}. */
    static WorkerProcess start(boolean brief) throws IOException, Died, Late {
        // The folder has no name that others could guess, and is gone as soon as the worker is connected.
        Path folder = Files.createTempDirectory("gatun-");
        Path socket = folder.resolve("worker");
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            server.bind(UnixDomainSocketAddress.of(socket));
            ProcessBuilder builder = new ProcessBuilder(command(socket, brief));
            WorkerProcess worker = new WorkerProcess(builder.redirectErrorStream(true).start());
            try {
                worker.process.getOutputStream().close();
                worker.connect(server);
                return worker;
            } catch (IOException | Died | Late | RuntimeException e) {
                worker.close();
                throw e;
            }
        } finally {
            Files.deleteIfExists(socket);
            Files.deleteIfExists(folder);
        }
    }

    private static List<String> command(Path socket, boolean brief) {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        // What the worker allocates is short-lived and little: a collector with threads of its own only takes processors away.
        command.addAll(List.of("-XX:+UseSerialGC", "-XX:+ErrorFileToStdout", "-XX:-CreateCoredumpOnCrash"));
        if (brief) {
            command.add("-XX:TieredStopAtLevel=1"); // of two processors, the second compiler would take half of one
        }
        for (String property : PASSED_ON) {
            if (System.getProperty(property) != null) {
                command.add("-D" + property + "=" + System.getProperty(property));
            }
        }
        String main = Worker.class.getName();
        Module module = Worker.class.getModule();
        if (module.isNamed()) {
            command.add("--enable-native-access=io.gatun.bindings,io.gatun.bench");
            command.addAll(List.of("--module-path", System.getProperty("jdk.module.path", "")));
            command.addAll(List.of("--module", module.getName() + "/" + main));
        } else {
            command.add("--enable-native-access=ALL-UNNAMED");
            command.addAll(List.of("--class-path", System.getProperty("java.class.path", ""), main));
        }
        command.add(socket.toString());
        return command;
    }

    private void connect(ServerSocketChannel server) throws IOException, Died, Late {
        CompletableFuture<SocketChannel> accepted = new CompletableFuture<>();
        Thread acceptor = Thread.ofVirtual().start(() -> {
            try {
                accepted.complete(server.accept());
            } catch (IOException e) {
                accepted.completeExceptionally(e);
            }
        });
        try {
            Object first = CompletableFuture.anyOf(accepted, process.onExit())
                    .get(START.toMillis(), TimeUnit.MILLISECONDS);
            if (!(first instanceof SocketChannel connected)) {
                throw died();
            }
            channel = connected;
            out = Channels.newWriter(connected, StandardCharsets.UTF_8);
            Thread.ofPlatform().daemon().name("worker's messages").start(() -> read(connected));
        } catch (TimeoutException e) {
            throw new Late(START);
        } catch (ExecutionException e) {
            throw new IOException(e.getCause());
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        } finally {
            acceptor.interrupt();
        }
    }

    private void read(SocketChannel from) {
        try (BufferedReader in = new BufferedReader(Channels.newReader(from, StandardCharsets.UTF_8))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                received.add(Message.parse(line));
            }
        } catch (IOException e) {
            // as good as an end
        }
        received.add(this);
    }

    /** Tells the worker something. That it is dead is found when its answer is read. */
    void send(Message message) {
        try {
            if (out != null) {
                out.write(message.text() + "\n");
                out.flush();
            }
        } catch (IOException e) {
            // it has died: receive() says how
        }
    }

    /** Waits for the next message. */
    Message receive(Duration timeout) throws Died, Late {
        try {
            Object next = received.poll(timeout.toMillis(), TimeUnit.MILLISECONDS);
            return switch (next) {
                case Message message -> message;
                case null -> throw new Late(timeout);
                default -> throw died();
            };
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private Died died() {
        try {
            if (!process.waitFor(10, TimeUnit.SECONDS)) {
                process.destroyForcibly();
            }
            return new Died(postMortem.cause(process.waitFor()));
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The address that the process died on, or null. */
    @Nullable Long faultAddress() {
        return postMortem.address();
    }

    /** Ends the process if it has not ended, and waits until it has. */
    @Override
    public void close() {
        process.destroyForcibly();
        try {
            process.waitFor();
            if (channel != null) {
                channel.close();
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
