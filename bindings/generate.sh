#!/bin/sh
# usage: bindings/generate.sh [folder of Java sources]
# Makes the classes of io.gatun.bindings.c from gatun.h, with the jextract of JDK 25 (or $JEXTRACT).
set -eu
sources=${1:-$(dirname "$0")/src/main/java}
mkdir -p "$sources"
sources=$(cd "$sources" && pwd)
cd "$(dirname "$0")/.."
package=$sources/io/gatun/bindings/c

rm -rf "$package"
"${JEXTRACT:-jextract}" @bindings/jextract.args --output "$sources" native/include/gatun/gatun.h

# Symbols come from the library that NativeLibraries opened: System.load of one file works in one class loader only.
sed -i '
  /static final SymbolLookup SYMBOL_LOOKUP = SymbolLookup.loaderLookup()/{
    N
    s/.*/    static final SymbolLookup SYMBOL_LOOKUP = io.gatun.bindings.NativeLibraries.core();/
  }' "$package/gatun_h.java"
grep -q 'SYMBOL_LOOKUP = io.gatun.bindings.NativeLibraries.core()' "$package/gatun_h.java" || {
  echo "generate.sh: jextract's symbol lookup was not found in gatun_h.java" >&2
  exit 1
}
