// Removes every synchronisation of a kernel in turn, and expects that somebody notices: a race, a deadlock, a flag left behind,
// or a wrong result.
#pragma once

#include "twin/twin.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace gatun::twin {

// A call that only keeps flags in balance says so in its line of the source: "orders nothing".
inline bool orders_nothing(const Site& site) {
  std::ifstream source(site.file);
  std::string line;
  for (int i = 0; i < site.line; ++i) std::getline(source, line);
  EXPECT_TRUE(source.good()) << site.file;
  return line.find("orders nothing") != std::string::npos;
}

// A launch whose answer says what went wrong, and checks what it computed.
using Run = std::function<std::string(const Options&, Result*)>;

// A site must matter to one of the runs. They have at least `sites` together.
inline void expect_sites_matter(const std::vector<Run>& runs, size_t sites) {
  std::map<std::pair<std::string, Removal>, bool> noticed;
  for (const Run& run : runs) {
    Result whole, ignored;
    ASSERT_EQ(run({}, &whole), "");
    for (const Site& site : whole.sites) {
      for (Removal removal : {Removal::Deleted, Removal::Weakened}) {
        if (removal == Removal::Weakened && orders_nothing(site)) continue;
        bool& known = noticed[{site.file + ":" + std::to_string(site.line) + ' ' + site.call, removal}];
        for (uint64_t seed = 0; seed < 2 && !known; ++seed) known = !run({seed, &site, removal}, &ignored).empty();
      }
    }
  }
  EXPECT_GE(noticed.size(), sites);
  for (const auto& [site, known] : noticed) {
    EXPECT_TRUE(known) << site.first << (site.second == Removal::Deleted ? " deleted" : " weakened");
  }
}

}  // namespace gatun::twin
