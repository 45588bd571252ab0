import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collections;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Mutations of the CPU kernels, all compiled into one library and chosen at run time.
 *
 * <pre>
 * java Mutate.java instrument ROOT FOLDER   copies the sources to FOLDER/tree with every site instrumented, lists the
 *                                           sites in FOLDER/sites; lines named in FOLDER/dropped have none
 * java Mutate.java drop FOLDER LOG          adds the lines of that tree that a compiler's log has errors for to
 *                                           FOLDER/dropped
 * java Mutate.java choose FOLDER COUNT SEED FILES
 *                                           chooses among the sites that are compiled (FOLDER/compiled) and reached
 *                                           (FOLDER/reached), evenly over files and kinds, in the files whose names
 *                                           have a match for FILES: FOLDER/chosen; those that are compiled and not
 *                                           reached: FOLDER/unreached
 * </pre>
 */
final class Mutate {
    /** Where the mutants are made: the sources of the CPU backend that compute, or say who computes what. */
    private static final Pattern FILES = Pattern.compile("native/src/cpu/(math\\.h|simd\\.h|threads\\.cc|"
            + "(activation|attention|conv|fake_quantize|gemm|merge|mix|norm|pooling|rope|route|select|softmax)/[a-z_]+\\.(cc|h))");

    /** Code that is left alone: what matches, and with {@code statement} all to the end of the statement. */
    private record Exclusion(String file, String line, boolean statement, String reason) {}

    private static final List<Exclusion> EXCLUSIONS = List.of(
            new Exclusion("", "HWY_UNROLL\\(\\d+\\)", false, "a number for the compiler"),
            new Exclusion("", "if \\(.*kAhead|for \\(.*kPanels; \\+\\+i\\) \\{\\s*__builtin_prefetch|prefetch", true,
                    "what is fetched ahead changes no result"),
            new Exclusion("softmax/kernels", "r \\+ 1 < rows \\? (from|to) \\+ \\w+ : \\w+", false, "the same"),
            new Exclusion("", "\\bfail\\(|return wrong\\(|snprintf|name_kernel", true, "the text of messages and names"),
            new Exclusion("", "info->|\\bdescribe\\(|double (visible_pairs|window_pairs|sum_clamped|elements_of"
                    + "|head_pairs|count_blocks)\\(", true,
                    "what a plan says of its cost: the native tests compare it with figures of their own"),
            new Exclusion("", "space->take<|lay_out\\(|bytes = sums_at|int64_t sums_bytes"
                    + "|(workspace|angle|worker|scratch)_bytes|(?<=list_bytes_\\()", true,
                    "how much memory is asked for: the sanitized tests see where it is too little"),
            new Exclusion("", "0x40u|0x400000u", false, "which NaN"),
            new Exclusion("/plan", "const double|double (rows|elements|copies)|const bool (layer|has_)"
                    + "|const int64_t n = desc\\.x\\.shape", true, "the same"),
            new Exclusion("activation/|merge/|mix/|norm/|rope/|softmax/|gemm/epilogue",
                    "(?<=load_some\\([^;\\n]{1,60}, )0\\.0f(?=\\))", false,
                    "the lanes beyond the end of a row: computed or masked, never stored and never summed"),
            new Exclusion("gemm/rows", "(?<=VF x = load_some\\([^;\\n]{1,60}, )0\\.0f(?=\\))", false,
                    "the same; not where the range of a row is found, which has these lanes in it"),
            new Exclusion("", "INT64_MAX [-/] \\d+|\\(int64_t\\{1\\} << 48\\)", false,
                    "how large a size has to be that no memory holds; whether it is refused, is mutated"),
            new Exclusion("(activation|norm|rope|softmax)/plan", "const int64_t (width|height) = ", true,
                    "how much work is a task"),
            new Exclusion("(activation|norm|softmax)/plan|gemm/pack",
                    "(?<=\\+ (width|height|batch) )-(?= 1\\) / )", false, "one more task, which is empty"),
            new Exclusion("gemm/pack", "\\bhuge\\b|kHugePage|batch = |return panel_elements >= ", true,
                    "the size of memory pages, and how much work is worth a task"),
            new Exclusion("gemm/(plan|grid)", "auto worth_halving|while \\(block_.*worth_halving|task_work = "
                    + "|bool spreads_rows|as_they_are_ = |batch = kPrepare", true,
                    "how much work is worth a task, and which rows are worth a copy: speed alone"),
            new Exclusion("gemm/(plan|grid)", "const int64_t unit = |static int64_t max_panels|int64_t most = "
                    + "|if \\(most < block_rows\\)|if \\(rows_at_once > most\\)|same_type_ && rows < 4", true,
                    "how large a block is, and how many rows are prepared at once: the same sums in the same order"),
            new Exclusion("gemm/rows", "std::memset\\(to, 0|\\*zero = 0;", true,
                    "what a row holds whose scale is 0 or NaN: 0 or NaN times that"),
            new Exclusion("gemm/kernels", "depths = k <= |panel_by_panel = ", true,
                    "into how many parts k is cut, and whether panels or parts come first: the sums go on where they"
                            + " stopped"),
            new Exclusion("attention/(plan|pattern)", "constexpr (int64_t|double) k\\w+ = ", true,
                    "how much work is worth a task, and what is too large"),
            new Exclusion("attention/plan", "int64_t items_per_task|double at_most_pairs|while \\(items < kWantedTiles",
                    true, "how much work is worth a task"),
            new Exclusion("attention/cut", "int64_t \\w+ = 0(, \\w+ = 0)*;", true,
                    "what a sequence without queries never reads"),
            new Exclusion("attention/blocks", "int64_t block_size\\(|const bool gather = ", true,
                    "how many keys are a block, and whether they are copied"),
            new Exclusion("(activation|norm|softmax)/(glu_)?plan", "past_caches\\(|const bool past = ", true,
                    "which outputs go past the caches: speed alone"),
            new Exclusion("gemm/(microkernels|kernels)", "\\bnext (\\+= |= |- )", true,
                    "what is prefetched: speed alone"),
            new Exclusion("gemm/low_rank|select/plan", "(?<=< columns \\? [^;\\n]{1,60} : )0\\.0f(?=;)|(?<=c )<(?= columns \\?)",
                    false, "columns beyond the last: computed, never stored"),
            new Exclusion("select/blocks", "to\\[d \\* panel\\] = 0\\.0f", true, "the same"),
            new Exclusion("merge/plan", "args\\.length < kTileTokens", true, "how much work is a task"),
            new Exclusion("norm/kernels", "last_pass<false, false>\\(d, h, 0\\.0f, 0\\.0f", false,
                    "a mean that RMSNorm does not read"),
            new Exclusion("/plan", "(?<=(rows|tokens|heads|length) \\+ (height|tile_heads|tokens) - 1\\) )/", false,
                    "more tasks, all empty"),
            new Exclusion("rope/plan", "token_elements_ \\+= ", true, "how much work is a task"),
            new Exclusion("attention/pattern", "window > reach / dilation|(?<=\\? -)1(?= : window)"
                    + "|(?<=reach \\+ )1(?=\\))", false,
                    "a negative window is unlimited, as is one beyond all keys; a dilation beyond them shows one"),
            new Exclusion("attention/pattern", "return masks == other\\.masks", true,
                    "heads that are not found to see the same share no tiles: speed alone"),
            new Exclusion("gemm/pack", "for \\(int64_t c = columns; c < panel; \\+\\+c\\)", true,
                    "columns beyond the last: computed, never stored"),
            new Exclusion("attention/plan", "int64_t part(ial)?_floats(_of)?\\(", true,
                    "how much memory is asked for"),
            new Exclusion("gemm/plan", "(scales|zeros|projected|offsets|segments|index|workers)_at = |projected_bytes = ",
                    true, "the same"),
            new Exclusion("gemm/plan", "const int64_t worth = |constexpr int64_t kProjectionTiles|kTasks \\* segment\\.rows",
                    true, "how much work is worth a task"),
            new Exclusion("merge/kernels", "(?<=t\\.sink_logits\\[r / t\\.tokens\\] : )0\\.0f", false,
                    "rows of zeros beyond the last"),
            new Exclusion("threads", "for \\(int spins = 0; |if \\((spins < kSpins|epoch == seen)\\)|void pause"
                    + "|void futex|int cgroup_quota|sigset|int usable_threads|sleepers_", true,
                    "how threads wait, and how many there are"),
            new Exclusion("threads", "started_ < wanted|start_workers\\(threads - 1\\)|threads <= 1"
                    + "|(?<=\\{this, started_ \\+ )1", false, "how many threads there are, and how many of them work"),
            new Exclusion("threads", "_ = 0;|_\\{0\\}", true, "static storage, zero before anything runs"),
            new Exclusion("conv/plan", "constexpr int64_t k\\w+ = |const int64_t (work|height) = |int64_t part\\(", true,
                    "how much work is a task, and how many images are rewritten at once"),
            new Exclusion("conv/plan", "const double |\\b\\w+_bytes\\(", true,
                    "what a plan says of its cost, and how much memory is asked for"),
            new Exclusion("gemm/plan", "m_a_ = ", true, "read for what a plan says of its cost"),
            new Exclusion("gemm/plan", "(?<=\\(task )-(?= segment\\.first_task\\) %)", false,
                    "which task of a panel computes which rows: all are computed, once each"),
            new Exclusion("gemm/low_rank", "(?<=scratch, )0(?=, nullptr)|(?<=nullptr, )0(?=, p > 0|\\})", false,
                    "strides between panels, of which there is one, and what is prefetched after it"),
            new Exclusion("gemm/rows", "0x1p-?100f", false, "the reciprocal is exact enough far beyond its range, too"),
            new Exclusion("select/kernels", "(?<=greatest > 0\\.0f \\? greatest : )1\\.0f", false,
                    "what a row of zeros is divided by"),
            new Exclusion("select/lsh", "(?<=high < )0", false, "-1 or beyond the centre, which is 0 or more"),
            new Exclusion("attention/mask", "(?<=if \\(first < 0\\) first = )0|(?<=if \\(last < 0\\) last = )0", false,
                    "who asks cuts the range to the keys of a block"));

    /** Code where the smallest change is none. */
    private record Edge(String file, String code, String reason) {}

    /** What matches is changed more: comparisons are reversed there, and integers become one less. */
    private static final List<Edge> EDGES = List.of(
            new Edge("", "for \\(;[^;]*;[^;{)]*lanes\\)", "what a loop over vectors leaves, what follows it does"),
            new Edge("activation/|gemm/|norm/|softmax/", "if \\(n < lanes\\)|if \\(i < [nk]\\)|(left|k - i) >= lanes",
                    "a whole vector may go as a part of one, and no lanes change nothing"),
            new Edge("", "\\bif \\((\\w+) [<>]=? ([^;]+)\\) \\1 = (static_cast<\\w+>\\()?\\2\\)?;",
                    "of two equal numbers either is the smaller"),
            new Edge("", "(?<=(?:[=(,:]|return)\\s{1,40})([^=,:?;]+?) [<>]=? ([^?;]+?)\\s+\\?"
                    + " (\\1\\s+: \\2|\\2\\s+: \\1)\\b", "the same"),
            new Edge("merge/|mix/", "whole = n - i >= lanes", "a whole vector may go as a part of one"),
            new Edge("", "keys < 0 \\? 0", "of two equal numbers either is the smaller"),
            new Edge("gemm/rows", "s > 0x1p-100f && s < 0x1p100f", "either way serves at the ends of the range"),
            new Edge("gemm/pack", "q > 127\\.0f|q < -127\\.0f|magnitude > scales\\[c\\]", "the same"),
            new Edge("math", "hn::(Lt|Gt)\\(x, bound\\)", "the same"),
            new Edge("gemm/kernels", "block\\.panels - panel >= width", "panels one by one are the same panels"),
            new Edge("", "[<>]=? (\\(numbered \\? )?(INT64_MAX|kMaxSize|kMost(Elements|Positions)?\\b"
                    + "|\\(int64_t\\{1\\} << 4[08])",
                    "sizes that no memory of a test holds"),
            new Edge("attention/blocks", "for \\(int64_t (slot|key) = [^;]*;[^;]*", "an empty block more"),
            new Edge("attention/blocks", "(first|last) [<>]=? window_of\\([^;{]*|last >= mask_\\.len_k - mask_\\.len_q"
                    + "|first < mask_\\.sinks|mask_\\.globals\\[i\\] [<>]=? (first|last)",
                    "a block that is not known to be full is looked at key by key"),
            new Edge("gemm/(plan|pack)", "round_up\\((rows_at_once|columns) \\* 4, 64\\)|const int64_t element = [^;]*",
                    "memory to spare"),
            new Edge("threads", "task >= tasks_", "one more task is empty"));

    private static final Map<String, String> OPERATORS = Map.ofEntries(
            Map.entry("+", "Plus -"), Map.entry("-", "Minus +"), Map.entry("*", "Times +"), Map.entry("/", "Over *"),
            Map.entry("%", "Modulo +"), Map.entry("<", "Less <="), Map.entry("<=", "LessEqual <"),
            Map.entry(">", "Greater >="), Map.entry(">=", "GreaterEqual >"), Map.entry("==", "Equal !="),
            Map.entry("!=", "NotEqual =="), Map.entry("+=", "PlusAssign -="), Map.entry("-=", "MinusAssign +="),
            Map.entry("*=", "TimesAssign +="), Map.entry("/=", "OverAssign *="));

    private static final Map<String, String> REVERSED = Map.of(
            "<", "LessReversed >", "<=", "LessEqualReversed >=", ">", "GreaterReversed <", ">=",
            "GreaterEqualReversed <=");

    /** hn:: functions by what they become; vectors.h has the same list. */
    private static final Map<String, String> VECTORS = Map.ofEntries(
            Map.entry("Add", "Sub"), Map.entry("Sub", "Add"), Map.entry("Mul", "Add"), Map.entry("Div", "Mul"),
            Map.entry("Min", "Max"), Map.entry("Max", "Min"), Map.entry("MulAdd", "NegMulAdd"),
            Map.entry("MulSub", "MulAdd"), Map.entry("NegMulAdd", "MulAdd"), Map.entry("And", "Or"),
            Map.entry("Or", "And"), Map.entry("Lt", "Le"), Map.entry("Le", "Lt"), Map.entry("Gt", "Ge"),
            Map.entry("Ge", "Gt"), Map.entry("Eq", "Ne"), Map.entry("Neg", "its operand"),
            Map.entry("Abs", "its operand"), Map.entry("CopySign", "its first operand"),
            Map.entry("IfThenElse", "its operands swapped"), Map.entry("IfNegativeThenElse", "its operands swapped"),
            Map.entry("FirstN", "one lane more"), Map.entry("AllTrue", "!AllTrue"),
            Map.entry("SumOfLanes", "its operand"), Map.entry("MinOfLanes", "MaxOfLanes"),
            Map.entry("MaxOfLanes", "MinOfLanes"), Map.entry("InterleaveLower", "InterleaveUpper"),
            Map.entry("InterleaveUpper", "InterleaveLower"));

    /** wide:: functions by what they become; wide.h has the same list. */
    private static final Map<String, String> WIDE = Map.of(
            "add", "sub", "sub", "add", "mul", "add", "div", "mul", "mul_add", "neg_mul_add", "neg_mul_add", "mul_add",
            "neg", "its operand", "abs", "its operand", "at_least", "at_most", "at_most", "at_least");

    private static final Pattern SITE = Pattern.compile(
            "(?<= )(?<operator>[-+*/%]=?|[<>]=?|==|!=)(?=[ \n])"
                    + "|(?<![\\w.])(?<number>0[xX][0-9a-fA-F]+u?|0x[0-9a-fA-F.]+p[-+]?\\d+f?|"
                    + "\\d+\\.\\d*(e[-+]?\\d+)?f?|\\d+[uU]?)(?![\\w.])"
                    + "|\\bhn::(?<vector>\\w+)\\((?!\\))"
                    + "|\\bwide::(?<wide>\\w+)\\(");

    /** A site: the text that stands there, and what it would be. */
    private record Site(int id, String file, int line, String kind, String original, String mutated, String text) {
        String row() {
            return String.join("\t", "" + id, file, "" + line, kind, original, mutated, text);
        }

        static Site parse(String row) {
            String[] fields = row.split("\t", 7);
            return new Site(Integer.parseInt(fields[0]), fields[1], Integer.parseInt(fields[2]), fields[3], fields[4],
                    fields[5], fields[6]);
        }
    }

    private final List<Site> sites = new ArrayList<>();
    private final Set<String> dropped;

    private Mutate(Set<String> dropped) {
        this.dropped = dropped;
    }

    public static void main(String[] args) throws IOException {
        switch (args[0]) {
            case "instrument" -> instrument(Path.of(args[1]), Path.of(args[2]));
            case "drop" -> drop(Path.of(args[1]), Path.of(args[2]));
            case "choose" -> choose(Path.of(args[1]), Integer.parseInt(args[2]), Long.parseLong(args[3]),
                    Pattern.compile(args[4]));
            default -> throw new IllegalArgumentException("there is no command '" + args[0] + "'");
        }
    }

    // ---- Instrumenting ---------------------------------------------------------------------------------------------

    private static void instrument(Path root, Path folder) throws IOException {
        Map<String, String> tree = new TreeMap<>();
        Mutate mutate = new Mutate(lines(folder.resolve("dropped")));
        for (String part : List.of("CMakeLists.txt", "cmake", "native/CMakeLists.txt", "native/include",
                "native/src", "native/tests")) {
            for (Path file : filesOf(root.resolve(part))) {
                String name = root.relativize(file).toString();
                String text = Files.readString(file);
                tree.put(name, FILES.matcher(name).matches() ? mutate.mutate(name, text) : text);
            }
        }
        for (String file : List.of("mutation.h", "vectors.h", "wide.h", "state.cc")) {
            tree.put("native/src/cpu/mutation/" + file,
                    Files.readString(root.resolve("native/tests/mutation/" + file)));
        }
        for (String other : List.of("kernels-cu", "ascend-adapter", "bench/native/calls")) {
            edit(tree, "CMakeLists.txt", "add_subdirectory(" + other + ")\n", "");
        }
        edit(tree, "native/CMakeLists.txt", "src/cpu/threads.cc", "src/cpu/threads.cc src/cpu/mutation/state.cc");
        for (String test : List.of("math_test", "half_test")) {
            edit(tree, "native/tests/CMakeLists.txt", test + " " + test + ".cc",
                    test + " " + test + ".cc ../src/cpu/mutation/state.cc");
        }
        edit(tree, "native/src/cpu/simd.h", "namespace hn = hwy::HWY_NAMESPACE;\n",
                "namespace hn = hwy::HWY_NAMESPACE;\n#include \"cpu/mutation/vectors.h\"\n");
        edit(tree, "native/src/cpu/math.h", "}  // namespace wide\n",
                "}  // namespace wide\n#include \"cpu/mutation/wide.h\"\n");
        // With all sites of the elementary functions inlined into each other, compiling them takes minutes.
        edit(tree, "native/src/cpu/math.h", "\nHWY_INLINE ", "\ninline __attribute__((noinline)) ");
        for (Map.Entry<String, String> file : tree.entrySet()) {
            write(folder.resolve("tree").resolve(file.getKey()), file.getValue());
        }
        Files.write(folder.resolve("sites"), mutate.sites.stream().map(Site::row).toList());
        System.out.println(mutate.sites.size() + " sites");
    }

    private static List<Path> filesOf(Path path) throws IOException {
        try (Stream<Path> files = Files.walk(path)) {
            return files.filter(Files::isRegularFile).sorted().toList();
        }
    }

    private static void edit(Map<String, String> tree, String file, String from, String to) {
        if (!tree.get(file).contains(from)) {
            throw new IllegalStateException(file + " no longer has '" + from + "': change Mutate.java");
        }
        tree.put(file, tree.get(file).replace(from, to));
    }

    /** Writes a file unless it is the same already, so that nothing is compiled twice. */
    private static void write(Path file, String text) throws IOException {
        if (!Files.exists(file) || !Files.readString(file).equals(text)) {
            Files.createDirectories(file.getParent());
            Files.writeString(file, text);
        }
    }

    private String mutate(String file, String text) {
        BitSet code = code(text);
        exclude(file, text, code);
        BitSet edges = edges(file, text);
        StringBuilder out = new StringBuilder();
        int line = 1, from = 0;
        Matcher matcher = SITE.matcher(text);
        while (matcher.find()) {
            for (int i = from; i < matcher.start(); i++) {
                line += text.charAt(i) == '\n' ? 1 : 0;
            }
            out.append(text, from, matcher.start());
            String found = matcher.group();
            from = matcher.end();
            out.append(code.get(matcher.start()) && !dropped.contains(file + ":" + line)
                    ? replacement(matcher, file, line, lineAt(text, matcher.start()), edges.get(matcher.start()))
                    : found);
        }
        out.append(text.substring(from));
        // The first include is a header of our own, or follows #pragma once.
        return "#include \"cpu/mutation/mutation.h\"\n#line 1\n" + out;
    }

    private String replacement(Matcher matcher, String file, int line, String text, boolean edge) {
        int id = sites.size() + 1;
        String operator = matcher.group("operator");
        String number = matcher.group("number");
        String vector = matcher.group("vector");
        String wide = matcher.group("wide");
        if (operator != null) {
            String becomes = edge ? REVERSED.getOrDefault(operator, OPERATORS.get(operator)) : OPERATORS.get(operator);
            if (becomes == null) {
                return matcher.group();
            }
            String[] tag = becomes.split(" ");
            String kind = tag[0].endsWith("Assign")
                    ? "assignment"
                    : "+-*/%".contains(operator) ? "arithmetic" : "comparison";
            sites.add(new Site(id, file, line, kind, operator, tag[1], text));
            return operator + " ::gatun::mutation::" + tag[0] + "<" + id + ">() " + operator;
        }
        if (number != null) {
            boolean real = number.contains(".") || number.contains("p");
            sites.add(new Site(id, file, line, real ? "real" : "integer", number,
                    real ? "a 16th more" : number + (edge ? " - 1" : " + 1"), text));
            return "::gatun::mutation::" + (edge && !real ? "less" : "more") + "<" + id + ">(" + number + ")";
        }
        boolean reversed = edge && ("Lt".equals(vector) || "Gt".equals(vector));
        String mutated = reversed
                ? (vector.equals("Lt") ? "Gt" : "Lt")
                : vector != null ? VECTORS.get(vector) : WIDE.get(wide);
        if (mutated == null) {
            return matcher.group();
        }
        sites.add(new Site(id, file, line, "vector", vector != null ? vector : wide, mutated, text));
        return (vector != null ? "mutated::" + vector + (reversed ? "Reversed" : "") : "mutated_wide::" + wide) + "<"
                + id + ">(";
    }

    private static String lineAt(String text, int at) {
        int end = text.indexOf('\n', at);
        return text.substring(text.lastIndexOf('\n', at) + 1, end < 0 ? text.length() : end).strip();
    }

    /** The characters that are code: no comment, string, character or line of the preprocessor. */
    private static BitSet code(String text) {
        BitSet code = new BitSet();
        int i = 0;
        boolean lineStart = true;
        while (i < text.length()) {
            char c = text.charAt(i);
            if (lineStart && c == '#') {
                while (i < text.length() && (text.charAt(i) != '\n' || text.charAt(i - 1) == '\\')) {
                    i++;
                }
            } else if (text.startsWith("//", i)) {
                i = text.indexOf('\n', i);
            } else if (text.startsWith("/*", i)) {
                i = text.indexOf("*/", i) + 2;
            } else if (c == '"' || c == '\'') {
                for (i++; text.charAt(i) != c; i++) {
                    i += text.charAt(i) == '\\' ? 1 : 0;
                }
                i++;
            } else {
                lineStart = c == '\n' || lineStart && c == ' ';
                code.set(i++);
            }
        }
        return code;
    }

    /** Takes out of `code` what is excluded, and the steps of for loops: without them no mutant comes to an end. */
    private static void exclude(String file, String text, BitSet code) {
        for (Exclusion exclusion : EXCLUSIONS) {
            if (!Pattern.compile(exclusion.file()).matcher(file).find()) {
                continue;
            }
            Matcher matcher = Pattern.compile(exclusion.line(), Pattern.MULTILINE).matcher(text);
            while (matcher.find()) {
                if (code.get(matcher.end() - 1)) {
                    int end = exclusion.statement() ? endOfStatement(text, matcher.start()) : matcher.end();
                    code.clear(matcher.start(), end);
                }
            }
        }
        Matcher loops = Pattern.compile("\\bfor \\(").matcher(text);
        while (loops.find()) {
            int depth = 0, semicolons = 0, step = -1, i = loops.end() - 1;
            do {
                char c = text.charAt(i);
                depth += c == '(' ? 1 : c == ')' ? -1 : 0;
                if (c == ';' && depth == 1 && ++semicolons == 2) {
                    step = i;
                }
                i++;
            } while (depth > 0);
            if (step >= 0) {
                code.clear(step, i);
            }
        }
    }

    /** The characters where the smallest change is none. */
    private static BitSet edges(String file, String text) {
        BitSet edges = new BitSet();
        for (Edge edge : EDGES) {
            if (Pattern.compile(edge.file()).matcher(file).find()) {
                Matcher matcher = Pattern.compile(edge.code()).matcher(text);
                while (matcher.find()) {
                    edges.set(matcher.start(), matcher.end());
                }
            }
        }
        return edges;
    }

    /** After the semicolon that ends the statement at a place, or the brace that closes the block that it opens. */
    private static int endOfStatement(String text, int at) {
        Deque<Character> open = new ArrayDeque<>();
        for (int i = at; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '(' || c == '{') {
                open.push(c);
            } else if ((c == ')' || c == '}') && !open.isEmpty()) {
                char opened = open.pop();
                if (open.isEmpty() && opened == '{' && !text.startsWith(";", i + 1)) {
                    return i + 1;
                }
            } else if (c == ')' || c == '}' || c == ';' && open.isEmpty()) {
                return i + 1;
            }
        }
        return text.length();
    }

    // ---- What does not compile -------------------------------------------------------------------------------------

    private static void drop(Path folder, Path log) throws IOException {
        Set<String> dropped = new TreeSet<>(lines(folder.resolve("dropped")));
        int before = dropped.size();
        // An error inside mutation.h comes from the site that the notes below it name.
        Matcher matcher = Pattern.compile("/tree/(native/src/[^:\\s]+):(\\d+)(?=[:,])").matcher(Files.readString(log));
        while (matcher.find()) {
            if (FILES.matcher(matcher.group(1)).matches()) {
                dropped.add(matcher.group(1) + ":" + matcher.group(2));
            }
        }
        Files.write(folder.resolve("dropped"), dropped);
        System.out.println(dropped.size() - before + " lines dropped");
        System.exit(dropped.size() > before ? 0 : 1);
    }

    // ---- Choosing --------------------------------------------------------------------------------------------------

    private static void choose(Path folder, int count, long seed, Pattern files) throws IOException {
        List<Site> sites = Files.readAllLines(folder.resolve("sites")).stream().map(Site::parse).toList();
        BitSet compiled = new BitSet();
        ByteBuffer numbers = ByteBuffer.wrap(Files.readAllBytes(folder.resolve("compiled")))
                .order(ByteOrder.LITTLE_ENDIAN);
        while (numbers.remaining() >= 4) {
            compiled.set(numbers.getInt());
        }
        byte[] reached = Files.readAllBytes(folder.resolve("reached"));
        List<String> unreached = new ArrayList<>();
        Map<String, List<Site>> strata = new TreeMap<>();
        for (Site site : sites) {
            if (!compiled.get(site.id()) || !files.matcher(site.file()).find()) {
                continue;
            }
            if (reached[site.id()] == 0) {
                unreached.add(site.row());
            } else {
                strata.computeIfAbsent(site.file() + " " + site.kind(), _ -> new ArrayList<>()).add(site);
            }
        }
        Random random = new Random(seed);
        strata.values().forEach(stratum -> Collections.shuffle(stratum, random));
        List<Site> chosen = new ArrayList<>();
        List<List<Site>> order = new ArrayList<>(strata.values());
        Collections.shuffle(order, random);
        for (int round = 0; chosen.size() < count; round++) {
            int before = chosen.size();
            for (List<Site> stratum : order) {
                if (round < stratum.size() && chosen.size() < count) {
                    chosen.add(stratum.get(round));
                }
            }
            if (chosen.size() == before) {
                break;
            }
        }
        Files.write(folder.resolve("chosen"), chosen.stream().map(Site::row).toList());
        Files.write(folder.resolve("unreached"), unreached);
        System.out.printf("%d sites: %d compiled, %d of them never reached; %d chosen%n", sites.size(),
                compiled.cardinality(), unreached.size(), chosen.size());
    }

    private static Set<String> lines(Path file) throws IOException {
        return Files.exists(file) ? new LinkedHashSet<>(Files.readAllLines(file)) : Set.of();
    }
}
