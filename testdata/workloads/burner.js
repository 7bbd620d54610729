// Uses CPU time in one function, then stays alive: `node burner.js SECONDS STAY_SECONDS`.
const [seconds, stay] = process.argv.slice(2).map(Number);
let sink = 0;

function hotLoop(n) {
  let sum = 0;
  for (let i = 0; i < 200000; i++) {
    sum = Math.imul(sum + i, n | 1);
  }
  return sum;
}

while (process.cpuUsage().user < seconds * 1e6) {
  for (let i = 0; i < 20; i++) sink ^= hotLoop(sink);
}
setTimeout(() => process.exit(sink === 0.5 ? 1 : 0), stay * 1000);
