// Writing into a caller's gtn_message.
#pragma once

#include <gatun/gatun.h>

#include <cstdarg>
#include <cstddef>
#include <cstdio>

namespace gatun {

// Formats into `message`, cut to what the caller's size has room for; does nothing when there is no message.
__attribute__((format(printf, 2, 3))) inline void say(gtn_message* message, const char* format, ...) {
  if (message == nullptr || message->size <= offsetof(gtn_message, text)) return;
  size_t capacity = message->size - offsetof(gtn_message, text);
  if (capacity > sizeof message->text) capacity = sizeof message->text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message->text, capacity, format, arguments);
  va_end(arguments);
}

// The same, and gives back `status`, so that a check is one line: `return fail(message, GTN_INVALID_ARGUMENT, ...)`.
template <typename... Arguments>
[[nodiscard]] gtn_status fail(gtn_message* message, gtn_status status, const char* format, Arguments... arguments) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  say(message, format, arguments...);
#pragma GCC diagnostic pop
  return status;
}

// What a backend writes its message to: whole, whatever the caller's size, and not the caller's, which a call that succeeds
// leaves as it was.
class Reason {
 public:
  explicit Reason(gtn_message* caller) : caller_(caller) {}

  operator gtn_message*() { return &own_; }

  // Passes `status`, of the call that got this, on to the caller, with the message of a failure.
  gtn_status of(gtn_status status) {
    own_.text[sizeof own_.text - 1] = '\0';
    if (status != GTN_OK) say(caller_, "%s", own_.text);
    return status;
  }

 private:
  gtn_message* caller_;
  gtn_message own_ = {sizeof own_, ""};
};

}  // namespace gatun
