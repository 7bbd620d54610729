import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;

/** Uses CPU time in one function, then stays alive: `java Burner SECONDS STAY_SECONDS`. */
public class Burner {
    static int hotLoop(int n) {
        int sum = 0;
        for (int i = 0; i < 200000; i++) {
            sum = (sum + i) * (n | 1);
        }
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        long end = (long) (Double.parseDouble(arguments[0]) * 1e9);
        int sink = 0;
        while (threads.getCurrentThreadCpuTime() < end) {
            sink ^= hotLoop(sink);
        }
        Thread.sleep(1000 * Long.parseLong(arguments[1]));
        if (sink == 1) {
            System.err.println(sink);
        }
    }
}
