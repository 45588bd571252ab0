package io.gatun;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** A file that remembers what is written to it, transfers less than it is asked to, and fails when it is told to. */
final class RecordedChannel extends FileChannel {
    /** Bytes written at a position. */
    record Write(long position, byte[] bytes) {}

    final List<Write> all = Collections.synchronizedList(new ArrayList<>());
    private final FileChannel file;
    volatile int mostBytes = Integer.MAX_VALUE; // that one call transfers
    volatile long failFrom = Long.MAX_VALUE; // writes from this position on fail
    volatile long failBelow = Long.MIN_VALUE; // and those below this one
    volatile boolean failReads;
    volatile Runnable beforeWrite = () -> {};
    volatile Runnable beforeRead = () -> {};

    RecordedChannel(Path path) throws IOException {
        file = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
    }

    @Override
    public int write(ByteBuffer source, long position) throws IOException {
        beforeWrite.run();
        if (position >= failFrom || position < failBelow) {
            throw new IOException("no space left, says the test");
        }
        byte[] bytes = new byte[Math.min(mostBytes, source.remaining())];
        source.get(bytes);
        int count = file.write(ByteBuffer.wrap(bytes), position);
        all.add(new Write(position, bytes));
        return count;
    }

    @Override
    public int read(ByteBuffer target, long position) throws IOException {
        beforeRead.run();
        if (failReads) {
            throw new IOException("no answer, says the test");
        }
        int limit = target.limit();
        target.limit(target.position() + Math.min(mostBytes, target.remaining()));
        int count = file.read(target, position);
        target.limit(limit);
        return count;
    }

    @Override
    public FileLock tryLock(long position, long size, boolean shared) throws IOException {
        return file.tryLock(position, size, shared);
    }

    @Override
    public long size() throws IOException {
        return file.size();
    }

    @Override
    public FileChannel truncate(long size) throws IOException {
        file.truncate(size);
        return this;
    }

    @Override
    public void force(boolean metaData) throws IOException {
        file.force(metaData);
    }

    @Override
    protected void implCloseChannel() throws IOException {
        file.close();
    }

    // What a spill file has no use for.

    @Override
    public int read(ByteBuffer target) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long read(ByteBuffer[] targets, int offset, int length) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int write(ByteBuffer source) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long write(ByteBuffer[] sources, int offset, int length) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long position() {
        throw new UnsupportedOperationException();
    }

    @Override
    public FileChannel position(long position) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long transferTo(long position, long count, WritableByteChannel target) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long transferFrom(ReadableByteChannel source, long position, long count) {
        throw new UnsupportedOperationException();
    }

    @Override
    public MappedByteBuffer map(MapMode mode, long position, long size) {
        throw new UnsupportedOperationException();
    }

    @Override
    public FileLock lock(long position, long size, boolean shared) {
        throw new UnsupportedOperationException();
    }
}
