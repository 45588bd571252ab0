package io.gatun;

import java.io.Closeable;
import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32C;

/**
 * The file of a {@link SpillTier}: slots of one size, and a record for each that says which block is in it.
 *
 * <pre>
 * 0      a page for the header: magic, version, state, bytes of a block, number of blocks; its CRC32C at the end
 * 4096   a record for each slot: key, sequence, slot, CRC32C of the block, CRC32C of the record, 0; zeros if it is free
 * then   from a whole page on the slots, each a whole number of pages
 * </pre>
 *
 * All numbers are little-endian. A block is written to a free slot, then the slot's record, and only then is the record
 * of the slot erased that had the block before. So whenever the process ends there is a record of an intact block: the
 * old one, the new one, or both, of which the higher sequence counts. What was damaged since does not fit its checksum.
 *
 * <p>All of the file is written when it is made, so that a disk that is too small is an error then, and it is never
 * mapped. Any thread may read, one at a time writes. No thread that does either may be interrupted: that would close
 * the channel.
 */
final class SpillFile implements Closeable {
    static final int PAGE = 4096;
    static final int RECORD = 32;

    private static final long MAGIC = 0x4c4c4950534e5447L; // "GTNSPILL"
    private static final int VERSION = 1;
    private static final int UNFINISHED = 1;
    private static final int READY = 2;
    private static final int CHUNK = 1 << 20;
    private static final ByteBuffer FREE = ByteBuffer.allocate(RECORD).asReadOnlyBuffer();

    /** A block that was there when the file was opened. */
    record Found(long key, int slot, long sequence) {}

    private final FileChannel channel;
    private final Path path;
    private final int blocks;
    private final int slots; // one more than blocks: a new version is written before the old one is given up
    private final long blockBytes;
    private final ByteBuffer record = buffer(RECORD);
    private final int[] checksums; // of what is in the slots
    private final int[] free; // slots without a record, used from the end
    private int freeCount;
    private long sequence;
    private final List<Found> found = new ArrayList<>();
    private long damagedRecords;

    /** Opens a file, which is made if it is not there or empty, or if its making was cut short. */
    static SpillFile open(Path path, long blockBytes, int blocks) throws IOException {
        FileChannel channel = FileChannel.open(
                path, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
        try {
            return new SpillFile(channel, path, blockBytes, blocks);
        } catch (IOException | RuntimeException | Error e) {
            channel.close();
            throw e;
        }
    }

    SpillFile(FileChannel channel, Path path, long blockBytes, int blocks) throws IOException {
        this.channel = channel;
        this.path = path;
        this.blocks = blocks;
        this.slots = blocks + 1;
        this.blockBytes = blockBytes;
        lock();
        if (!isReady()) {
            make();
        }
        this.checksums = new int[slots];
        this.free = new int[slots];
        scan();
    }

    private void lock() throws IOException {
        try {
            if (channel.tryLock() != null) {
                return;
            }
        } catch (OverlappingFileLockException e) {
            // by this process
        }
        throw new IllegalStateException("the spill file " + path + " is open already, in this process or another");
    }

    /** Whether there is a whole file. */
    private boolean isReady() throws IOException {
        if (channel.size() == 0) {
            return false;
        }
        ByteBuffer header = buffer(PAGE);
        try {
            readFully(header, 0);
        } catch (EOFException e) {
            throw damagedHeader();
        }
        header.flip();
        if (header.getLong(0) != MAGIC || header.getInt(PAGE - 4) != checksum(header.slice(0, PAGE - 4))) {
            throw damagedHeader();
        }
        if (header.getInt(8) != VERSION) {
            throw new IOException(
                    "the spill file " + path + " has version " + header.getInt(8) + ", expected " + VERSION);
        }
        if (header.getInt(12) != READY) {
            return false;
        }
        same("blockBytes", blockBytes, header.getLong(16));
        same("blocks", blocks, header.getInt(24));
        if (channel.size() < slot(slots)) {
            throw new IOException("the spill file " + path + " has " + channel.size() + " bytes, expected "
                    + slot(slots) + ": it was cut off");
        }
        return true;
    }

    private IOException damagedHeader() {
        return new IOException(
                "the file " + path + " is no spill file, or its header is damaged; delete it to begin anew");
    }

    private void same(String name, long asked, long has) {
        if (asked != has) {
            throw new IllegalArgumentException(name + ": " + asked + ", expected " + has + ", as the spill file " + path
                    + " has; delete it to begin anew");
        }
    }

    /** Writes all of the file once. The header says that this is not finished until it is. */
    private void make() throws IOException {
        channel.truncate(0);
        long most = Files.getFileStore(path).getUsableSpace();
        if (slot(slots) > most) {
            throw new IOException("the spill file " + path + " needs " + slot(slots) + " bytes, of which its disk has "
                    + most + ": it is full");
        }
        try {
            writeHeader(UNFINISHED);
            ByteBuffer zeros = buffer((int) Math.min(CHUNK, slot(slots)));
            for (long at = PAGE; at < slot(slots); ) {
                zeros.position(0).limit((int) Math.min(zeros.capacity(), slot(slots) - at));
                at += zeros.remaining();
                writeFully(zeros, at - zeros.remaining());
            }
            writeHeader(READY);
        } catch (IOException e) {
            try {
                channel.truncate(0); // what was written is no use, and others may need the room
            } catch (IOException suppressed) {
                e.addSuppressed(suppressed);
            }
            throw e;
        }
    }

    private void writeHeader(int state) throws IOException {
        ByteBuffer header = buffer(PAGE);
        header.putLong(0, MAGIC).putInt(8, VERSION).putInt(12, state).putLong(16, blockBytes).putInt(24, blocks);
        header.putInt(PAGE - 4, checksum(header.slice(0, PAGE - 4)));
        writeFully(header, 0);
    }

    /** Finds out what is there. Damaged records, and those of blocks that are there in a newer version, are erased. */
    private void scan() throws IOException {
        Map<Long, Found> newest = new HashMap<>();
        boolean[] used = new boolean[slots];
        ByteBuffer records = buffer((int) Math.min(CHUNK, (long) slots * RECORD));
        for (int first = 0; first < slots; first += CHUNK / RECORD) {
            int count = Math.min(CHUNK / RECORD, slots - first);
            readFully(records.position(0).limit(count * RECORD), recordAt(first));
            for (int i = 0; i < count; i++) {
                scan(first + i, records.slice(i * RECORD, RECORD).order(ByteOrder.LITTLE_ENDIAN), newest, used);
            }
        }
        for (int slot = slots - 1; slot >= 0; slot--) {
            if (!used[slot]) {
                free[freeCount++] = slot;
            }
        }
        found.addAll(newest.values());
        found.sort(Comparator.comparingLong(Found::sequence));
    }

    private void scan(int slot, ByteBuffer bytes, Map<Long, Found> newest, boolean[] used) throws IOException {
        if (bytes.mismatch(FREE) < 0) {
            return;
        }
        if (bytes.getInt(24) != checksum(bytes.slice(0, 24)) || bytes.getInt(28) != 0 || bytes.getInt(16) != slot) {
            damagedRecords++;
            eraseRecord(slot);
            return;
        }
        Found block = new Found(bytes.getLong(0), slot, bytes.getLong(8));
        sequence = Math.max(sequence, block.sequence);
        Found other = newest.get(block.key);
        if (other != null && other.sequence > block.sequence) {
            eraseRecord(slot);
            return;
        }
        if (other != null) {
            eraseRecord(other.slot);
            used[other.slot] = false;
        }
        used[slot] = true;
        checksums[slot] = bytes.getInt(20);
        newest.put(block.key, block);
    }

    /** The blocks that there were when the file was opened, the oldest first. {@link #read} tells if they are whole. */
    List<Found> found() {
        return found;
    }

    /** How many records were damaged when the file was opened. */
    long damagedRecords() {
        return damagedRecords;
    }

    /**
     * Writes a block to a free slot. It is not there before {@link #record}.
     *
     * @return the slot
     */
    int write(MemorySegment block) throws IOException {
        int slot = free[--freeCount];
        try {
            ByteBuffer bytes = block.asByteBuffer();
            checksums[slot] = checksum(bytes.duplicate());
            writeFully(bytes, slot(slot));
            return slot;
        } catch (IOException | RuntimeException | Error e) {
            abandon(slot);
            throw e;
        }
    }

    /** Takes a slot back that was written to and has no record. */
    void abandon(int slot) {
        free[freeCount++] = slot;
    }

    /** Says which block was written to a slot. If that fails there may be a record, to be erased. */
    void record(int slot, long key) throws IOException {
        record.clear().putLong(key).putLong(++sequence).putInt(slot).putInt(checksums[slot]);
        record.putInt(checksum(record.slice(0, 24))).putInt(0);
        writeFully(record.flip(), recordAt(slot));
    }

    /** Erases the record of a slot, which is free then. */
    void erase(int slot) throws IOException {
        eraseRecord(slot);
        abandon(slot);
    }

    private void eraseRecord(int slot) throws IOException {
        writeFully(FREE.duplicate(), recordAt(slot));
    }

    /** Reads a block, and says whether it is what was written. */
    boolean read(int slot, MemorySegment block) throws IOException {
        readFully(block.asByteBuffer(), slot(slot));
        return checksum(block.asByteBuffer()) == checksums[slot];
    }

    /** Has the system write to the disk what it has of the file. */
    void force() throws IOException {
        channel.force(false);
    }

    @Override
    public void close() throws IOException {
        channel.close();
    }

    private static long recordAt(int slot) {
        return PAGE + (long) slot * RECORD;
    }

    /** Where a slot starts; for the one behind the last, where the file ends. */
    long slot(int slot) {
        return pages(recordAt(slots)) + slot * pages(blockBytes);
    }

    private static long pages(long bytes) {
        return (bytes + PAGE - 1) & -PAGE;
    }

    private static ByteBuffer buffer(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static int checksum(ByteBuffer bytes) {
        CRC32C sum = new CRC32C();
        sum.update(bytes);
        return (int) sum.getValue();
    }

    private void writeFully(ByteBuffer bytes, long at) throws IOException {
        while (bytes.hasRemaining()) {
            at += channel.write(bytes, at);
        }
    }

    private void readFully(ByteBuffer bytes, long at) throws IOException {
        while (bytes.hasRemaining()) {
            int count = channel.read(bytes, at);
            if (count < 0) {
                throw new EOFException("the spill file " + path + " ends at " + channel.size() + " bytes");
            }
            at += count;
        }
    }
}
