package io.gatun;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Finds the slab of an address, without a lock: a hash table over the MiB that slabs cover, replaced as a whole when a
 * slab comes or goes. Slabs start at multiples of 2 MiB, so no two share one. A slab of its own is known by its first
 * MiB alone, where its one block starts.
 */
final class SlabTable {
    private static final int SHIFT = 20;

    private final List<Slab> slabs = new ArrayList<>();
    private int pages;
    private volatile @Nullable Slab[] slots = new Slab[16];

    @Nullable Slab find(long address) {
        @Nullable Slab[] table = slots;
        for (int i = hash(address >>> SHIFT);; i++) {
            Slab slab = table[i & table.length - 1];
            if (slab == null || address - slab.address >= 0 && address - slab.address < slab.bytes) {
                return slab;
            }
        }
    }

    synchronized void add(Slab slab) {
        slabs.add(slab);
        pages += pages(slab);
        if (2 * pages > slots.length) {
            slots = table(2 * slots.length);
        } else {
            @Nullable Slab[] table = slots.clone();
            insert(table, slab);
            slots = table;
        }
    }

    synchronized void remove(Slab slab) {
        slabs.remove(slab);
        pages -= pages(slab);
        slots = table(16);
    }

    private @Nullable Slab[] table(int length) {
        while (length < 2 * pages) {
            length *= 2;
        }
        @Nullable Slab[] table = new Slab[length];
        slabs.forEach(slab -> insert(table, slab));
        return table;
    }

    private static void insert(@Nullable Slab[] table, Slab slab) {
        for (int page = 0; page < pages(slab); page++) {
            int i = hash((slab.address >>> SHIFT) + page);
            while (table[i & table.length - 1] != null) {
                i++;
            }
            table[i & table.length - 1] = slab;
        }
    }

    private static int pages(Slab slab) {
        return slab.own ? 1 : (int) (slab.bytes + (1 << SHIFT) - 1 >>> SHIFT);
    }

    private static int hash(long page) {
        return (int) (page * 0x9e3779b97f4a7c15L >>> 32);
    }
}
