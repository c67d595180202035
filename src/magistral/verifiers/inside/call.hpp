// In the box: tells the value of a call after the nonce, in the same JSON as call.py.
#pragma once
#include <bits/stdc++.h>
#include <unistd.h>

namespace magistral_box {
using std::string;

inline string text(std::string_view s) {
  string out = "\"";
  char hex[8];
  for (unsigned char c : s) {
    if (c == '"' || c == '\\') { out += '\\'; out += static_cast<char>(c); }
    else if (c < 0x20) { std::snprintf(hex, sizeof hex, "\\u%04x", c); out += hex; }
    else out += static_cast<char>(c);
  }
  return out + "\"";
}

template <class T> string plain(const T& value);

template <class R> string all(const char* kind, const R& range) {
  string out = string("[\"") + kind + "\"";
  for (const auto& item : range) out += "," + plain(static_cast<const std::ranges::range_value_t<R>&>(item));
  return out + "]";
}

template <class T> concept Keyed = requires { typename T::key_type; };
template <class T> concept Mapped = Keyed<T> && requires { typename T::mapped_type; };
template <class T> concept Tupled = requires { std::tuple_size<T>::value; } && !std::ranges::range<T>;
template <class T> concept Optional = requires(const T& t) { t.has_value(); *t; };

template <class T> string plain(const T& value) {
  if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
  else if constexpr (std::is_same_v<T, char>) return text(string(1, value));
  else if constexpr (std::is_same_v<T, __int128>) {
    unsigned __int128 n = value < 0 ? -static_cast<unsigned __int128>(value) : value;
    string digits;
    do { digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(n % 10))); n /= 10; } while (n);
    return "[\"i\",\"" + string(value < 0 ? "-" : "") + digits + "\"]";
  }
  else if constexpr (std::is_integral_v<T>) return "[\"i\",\"" + std::to_string(value) + "\"]";
  else if constexpr (std::is_floating_point_v<T>) {
    char digits[64];
    std::snprintf(digits, sizeof digits, "%.*Lg", std::numeric_limits<T>::max_digits10, static_cast<long double>(value));
    return "[\"f\",\"" + string(digits) + "\"]";
  }
  else if constexpr (std::is_convertible_v<T, std::string_view>) return text(std::string_view(value));
  else if constexpr (Mapped<T>) {
    string out = "[\"d\"";
    for (const auto& [k, v] : value) out += ",[" + plain(k) + "," + plain(v) + "]";
    return out + "]";
  }
  else if constexpr (Keyed<T>) return all("s", value);
  else if constexpr (std::ranges::range<T>) return all("l", value);
  else if constexpr (Optional<T>) return value.has_value() ? plain(*value) : "null";
  else if constexpr (Tupled<T>)
    return std::apply([](const auto&... items) { return "[\"t\"" + (string() + ... + ("," + plain(items))) + "]"; }, value);
  else if constexpr (std::is_null_pointer_v<T>) return "null";
  else static_assert(std::is_void_v<T>, "the result is of a type that cannot be told");
}

template <class Call> void tell(const string& nonce, Call&& call) {
  string value = "null";
  if constexpr (std::is_void_v<std::invoke_result_t<Call>>) call();
  else { const auto result = call(); value = plain(result); }
  std::cout.flush();
  std::fflush(stdout);
  const string told = "\n" + nonce + " " + value + "\n";
  for (size_t at = 0; at < told.size();) {
    const ssize_t n = ::write(1, told.data() + at, told.size() - at);
    if (n <= 0) break;
    at += static_cast<size_t>(n);
  }
}

inline std::pair<string, int> asked() {  // "NONCE INDEX\n", byte by byte, so that what follows is left to the program
  string line;
  for (char c; ::read(0, &c, 1) == 1 && c != '\n';) line += c;
  const auto space = line.find(' ');
  return {line.substr(0, space), std::stoi(line.substr(space + 1))};
}
}  // namespace magistral_box
