// signatures.txt names every call of AscendCL and Ascend C there is, as it is declared: the first are held to acl.h in both
// directions, the second to the kernels, of which none may call what the list has not.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "backend/acl.h"

namespace {

const std::filesystem::path kRoot = GATUN_ASCEND_ROOT;

// The lines of one part of signatures.txt.
std::set<std::string> signatures(const std::string& part) {
  std::ifstream file(kRoot / "signatures.txt");
  std::set<std::string> lines;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('[')) {
      inside = line == "[" + part + "]";
    } else if (inside && !line.empty() && !line.starts_with('#')) {
      lines.insert(line);
    }
  }
  return lines;
}

TEST(Signatures, OfAscendClAreThoseOfTheHeader) {
  const std::set<std::string> declared = {
#define SIGNATURE(result, name, parameters) #result " " #name #parameters,
      GATUN_ACL_FUNCTIONS(SIGNATURE)
#undef SIGNATURE
  };
  EXPECT_EQ(declared, signatures("AscendCL"));
}

// A source without its comments and strings.
std::string code_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return std::regex_replace(text.str(), std::regex(R"(//[^\n]*|"[^"\n]*"|#include[^\n]*)"), "");
}

// Names of Ascend C are in upper camel case, and so are our types alone: whatever else is called or named so is one of theirs.
TEST(Signatures, OfAscendCAreAllThatKernelsUse) {
  std::set<std::string> known;
  const std::regex name(R"(\b[A-Z]\w*\b)");
  for (const std::string& line : signatures("Ascend C")) {
    for (std::sregex_iterator i(line.begin(), line.end(), name), end; i != end; ++i) known.insert(i->str());
  }
  std::vector<std::filesystem::path> sources;
  std::set<std::string> own;
  const std::regex declared(R"(\b(?:struct|class|enum class|typename|using)\s+([A-Z][A-Za-z0-9]*)\b(?!\s*::))");
  const std::regex macro(R"(#define GATUN_VECTOR\(\w+, (\w+)\))");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / "kernels")) {
    const std::string extension = entry.path().extension();
    const bool tests = entry.path().string().find("/tests/") != std::string::npos;
    if (tests || (extension != ".cpp" && extension != ".h") || entry.path().filename() == "plan.h") continue;
    sources.push_back(entry.path());
    const std::string code = code_of(entry.path());
    for (std::sregex_iterator i(code.begin(), code.end(), declared), end; i != end; ++i) own.insert((*i)[1]);
    for (std::sregex_iterator i(code.begin(), code.end(), macro), end; i != end; ++i) own.insert((*i)[1]);
  }
  EXPECT_GT(sources.size(), 10u);
  size_t uses = 0;
  const std::regex called(
      R"(\b([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*)\s*(?:<[^;{}()]*>)?\s*\(|\bAscendC::(\w+)|\bGATUN_VECTOR\(\w+, (\w+)\))");
  for (const std::filesystem::path& path : sources) {
    const std::string code = code_of(path);
    for (std::sregex_iterator i(code.begin(), code.end(), called), end; i != end; ++i) {
      const std::string found = (*i)[1].str() + (*i)[2].str() + (*i)[3].str();
      ++uses;
      EXPECT_TRUE(known.contains(found) || own.contains(found)) << path << ": '" << found << "' is not in signatures.txt";
    }
  }
  EXPECT_GT(uses, 100u);
}

}  // namespace
