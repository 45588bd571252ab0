// What the plans of all kinds of selection have in common: sequences, and lists that are written one after the other.
#pragma once

#include "cpu/select/select.h"
#include "cpu/workspace.h"

namespace gatun::cpu {

// The output function of SplitMix64 (Steele, Lea and Flood 2014) on the state after z.
inline uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

class SelectPlan : public Plan {
 public:
  SelectPlan(const Device& device, const gtn_select_desc& desc);
  ~SelectPlan() override { delete[] rotations_; }

  gtn_status run(Stream& stream, const void* args, gtn_message* message) const final;

  // Makes random rotations for each head: `bits` columns for each layer, side by side.
  gtn_status make_rotations(int64_t bits, gtn_message* message);
  void describe(gtn_plan_info* info) const;

 protected:
  // A run: its arguments, and workspace. Of the outputs nothing is read back: another thread may write to them.
  struct Call {
    gtn_select_args args;
    int64_t *q_index, *k_index;  // copies, or null
    int64_t entries;             // of the lists written so far
    // Of as many lists as are made at a time.
    int32_t* columns;  // [lists][width]
    float* biases;     // the same, or null
    int64_t* counts;
    char* workers;
    // GTN_SELECT_BLOCKS: [sequences][heads_k], panels of pooled keys.
    float* pools;
    // GTN_SELECT_LSH: labels, [sequences][heads_q][layers][len_q] and of the last layer [sequences][heads_q][len_k],
    // and the rest [sequences][heads_q][len].
    int32_t *q_labels, *k_labels, *q_order, *k_order, *q_sorting;
    // GTN_SELECT_RETRIEVAL, of one sequence and head: unit vectors, codes [len_q][layers] and [layers][len_k], and
    // for each table the keys by code and where each code starts.
    float *chunk_means, *mean, *q_unit, *k_unit;
    uint16_t *q_codes, *k_codes;
    int32_t *table_keys, *table_starts;
  };

  struct Sequence {
    int64_t first_q, len_q, first_k, len_k;
  };

  // The memory of a kind's own arrays, and bytes of scratch of a worker, a multiple of 64.
  virtual void take_own(Workspace* space, Call* call) const = 0;
  virtual int64_t worker_bytes() const = 0;
  // Finds and writes everything of a run.
  virtual void fill(Call& call) const = 0;
  // One list: its columns, in rising order, and where the kind has them its biases. Returns how many.
  virtual int64_t list(const Call& call, int64_t s, const Sequence& of, int64_t head, int64_t block, char* scratch,
                       int32_t* columns, float* biases) const = 0;

  // Writes the lists of sequences and heads `from` to `to` - 1, of sequences * heads.
  void write_lists(Call& call, int64_t from, int64_t to) const;

  Sequence sequence(const Call& c, int64_t s) const {
    if (packed_) return {c.q_index[s], c.q_index[s + 1] - c.q_index[s], c.k_index[s], c.k_index[s + 1] - c.k_index[s]};
    return {0, c.q_index != nullptr ? c.q_index[s] : c.args.len_q, 0,
            c.k_index != nullptr ? c.k_index[s] : c.args.len_k};
  }
  // `count` rows of q from query i of a head, or of k from key j; `heads` heads side by side make a row each.
  SelectRows q_rows(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t i, int64_t count,
                    int64_t heads = 1) const;
  SelectRows k_rows(const Call& c, int64_t s, const Sequence& of, int64_t head, int64_t j, int64_t count) const;
  // Keys that query i sees.
  int64_t visible(const Sequence& of, int64_t i) const {
    if (desc_.causal == 0) return of.len_k;
    const int64_t keys = i + of.len_k - of.len_q + 1;
    return keys < 0 ? 0 : at_most(keys, of.len_k);
  }
  char* worker(const Call& c, int worker) const { return c.workers + worker * worker_bytes(); }
  const float* rotation(int64_t head) const { return rotations_ + head * panels_of(rotation_columns_) * dk_; }
  int64_t panels_of(int64_t columns) const { return ceil_div(columns, kernels_.panel) * kernels_.panel; }

  const Device& device_;
  const SelectKernels& kernels_;
  const gtn_select_desc desc_;
  const bool packed_;
  const int64_t element_;
  const int64_t sequences_, len_q_, len_k_, heads_q_, heads_k_, dk_;
  const int64_t lists_;   // blocks of queries of a sequence and head at most
  const int64_t blocks_;  // blocks of keys
  const int64_t width_;   // entries of a list at most

 private:
  int64_t lay_out(Workspace* space, const gtn_select_args& args, Call* call) const;
  gtn_status take_index(const char* name, const char* limit_name, const int64_t* index, int64_t limit,
                        int64_t sequences, int64_t* copy, gtn_message* message) const;

  const float* rotations_ = nullptr;  // [heads_q], panels
  int64_t rotation_columns_ = 0;
};

SelectPlan* new_select_blocks(const Device& device, const gtn_select_desc& desc);
SelectPlan* new_select_lsh(const Device& device, const gtn_select_desc& desc);
SelectPlan* new_select_retrieval(const Device& device, const gtn_select_desc& desc);

}  // namespace gatun::cpu
