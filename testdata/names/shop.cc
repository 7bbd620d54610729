// Templates, inlined calls, lambdas and static functions, in one file without anything random. Names are compared in it.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace shop {
struct Item { std::string name; double price; int count; };
template <typename T> T scale(T value, int by) { T sum{}; for (int i = 0; i < by; i++) sum = sum * 3 + value; return sum; }
static inline double total(const Item& item) { return item.price * scale(item.count, 3); }
class Cart {
  std::map<std::string, std::vector<Item>> items;
 public:
  void add(Item item) { items[item.name].push_back(std::move(item)); }
  double sum() const {
    double all = 0;
    for (const auto& [name, list] : items)
      all += std::accumulate(list.begin(), list.end(), 0.0, [](double a, const Item& b) { return a + total(b); });
    return all;
  }
  std::string show() const {
    std::ostringstream out;
    for (const auto& [name, list] : items) out << name << ' ' << list.size() << '\n';
    return out.str();
  }
};
}

static bool matches(const std::string& text) {
  static const std::regex pattern("([a-z]+)-([0-9]+)(x|y)*");
  return std::regex_match(text, pattern);
}

int main(int argc, char** argv) {
  shop::Cart cart;
  std::vector<int> order(100 + argc);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return a * 7919 % 101 < b * 7919 % 101; });
  for (int i : order) {
    std::string name = "item-" + std::to_string(i);
    if (matches(name)) cart.add({name, i * 1.5, i});
  }
  std::function<void()> print = [&] { std::printf("%f %s", cart.sum(), cart.show().c_str()); };
  print();
  return argc > 1 ? argv[1][0] : 0;
}
