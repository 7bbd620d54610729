// Input for a compiler: templates of the standard library, instantiated for many types. Only
// compiled, never run.
#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Key {
    std::string text;
    int number = N;
    auto operator<=>(const Key &) const = default;
};

template <int N> std::size_t use(const std::string &text) {
    std::map<Key<N>, std::vector<std::tuple<int, std::string>>> by_key;
    std::variant<int, std::string, Key<N>> either = Key<N>{text};
    const std::regex pattern("(\\w+)=(\\d+)");
    for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match)
        by_key[Key<N>{(*match)[1]}].emplace_back(std::stoi((*match)[2]), match->str());
    std::set<std::tuple<int, std::string, Key<N>>> sorted;
    for (auto &[key, values] : by_key) {
        std::stable_sort(values.begin(), values.end(), [](auto &a, auto &b) { return std::get<0>(a) > std::get<0>(b); });
        for (auto &[number, string] : values)
            sorted.emplace(number, string, key);
    }
    std::function<std::size_t(std::size_t)> add = [&](std::size_t n) { return n + sorted.size() + either.index(); };
    return add(N);
}

template <int... N> std::size_t use_all(const std::string &text, std::integer_sequence<int, N...>) {
    return (use<N>(text) + ...);
}

int main(int argc, char **argv) {
    return static_cast<int>(use_all(argv[argc - 1], std::make_integer_sequence<int, 6>()));
}
