package io.gatun;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class PrefixTreeTest {
    private static final int PRIME = 0x01000193; // of the hash

    private static PrefixTree tree(int pageSize, int... tokens) {
        PrefixTree tree = new PrefixTree(tokens.length / pageSize, pageSize);
        for (int row = 0; row < tokens.length; row++) {
            tree.setToken(row, tokens[row]);
        }
        return tree;
    }

    @Test
    void equalHashesBehindOtherParentsAreToldApart() {
        int same = 5 ^ 1 * PRIME; // behind page 1 it has the hash of 5 behind page 0
        PrefixTree tree = tree(1, 8, 9, 5, same);
        tree.add(PrefixTree.NONE, 0);
        tree.add(PrefixTree.NONE, 1);
        tree.add(0, 2);
        assertEquals(2, tree.child(0, new int[] {7, 5}, 1));
        assertEquals(PrefixTree.NONE, tree.child(1, 3));
        tree.add(1, 3);
        assertEquals(2, tree.child(0, 2));
        assertEquals(3, tree.child(1, 3));
    }

    @Test
    void tokensOfEqualHashesAreToldApart() {
        int second = 3 ^ (0 * PRIME ^ 1) * PRIME ^ (0 * PRIME ^ 2) * PRIME;
        PrefixTree tree = tree(2, 0, 0, 1, 3, 2, second);
        tree.add(PrefixTree.NONE, 0);
        tree.add(0, 1);
        assertEquals(1, tree.child(0, 1));
        assertEquals(PrefixTree.NONE, tree.child(0, 2));
        tree.add(0, 2);
        assertEquals(2, tree.child(0, 2));
        tree.remove(1);
        assertFalse(tree.contains(1));
        assertTrue(tree.contains(2));
        assertEquals(PrefixTree.NONE, tree.child(0, 1));
        assertEquals(2, tree.child(0, 2), "what was pushed on by the page that is gone");
    }
}
