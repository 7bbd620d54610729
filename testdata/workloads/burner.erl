%% Uses CPU time in one function, and stays some seconds after that: `erl -run burner main SECONDS STAY`.
-module(burner).
-export([main/1]).

main([Seconds, Stay]) ->
    {Used, _} = erlang:statistics(runtime),
    spin(Used + round(1000 * list_to_float(Seconds)), 0),
    timer:sleep(1000 * list_to_integer(Stay)),
    halt().

spin(End, Sink) ->
    case erlang:statistics(runtime) of
        {Used, _} when Used < End -> spin(End, hot_loop(100000, Sink));
        _ -> Sink
    end.

hot_loop(0, Sink) -> Sink;
hot_loop(N, Sink) -> hot_loop(N - 1, (Sink * 31 + N) band 16#ffffff).
