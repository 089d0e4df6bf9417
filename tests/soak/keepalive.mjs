// Node's keep-alive client sends requests whose answer comes before their body is read: 401,
// 413 and 502. It does so directly and through the tunnel, and compares the failures.
//
// Prints the address of its upstream; then reads one line: ADDRESS HOST REQUESTS SEED.
import http from 'node:http';
import readline from 'node:readline';

const upstream = http.createServer((request, response) => {
  const status = Number(request.headers['x-status']);
  const body = Buffer.alloc(Number(request.headers['x-size']), request.headers['x-fill']);
  const answer = () => {
    response.writeHead(status, { 'Content-Length': body.length });
    response.end(body);
  };
  if (status === 200) {
    let count = 0;
    request.on('data', (piece) => { count += piece.length; });
    request.on('end', () => (count === Number(request.headers['x-body']) ? answer() : request.destroy()));
  } else {
    answer();
    request.resume();
  }
});

function random(seed) {
  let state = BigInt(seed) & 0xffffffffffffffffn;
  return (end) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 33n) % end;
  };
}

function one(agent, port, host, below) {
  return new Promise((resolve) => {
    const status = [200, 401, 413, 502][below(4)];
    const size = below(500);
    const fill = 'abcdefgh'[below(8)];
    const body = Buffer.alloc(below(10) === 0 ? below(300_000) : below(20_000), 'b');
    const request = http.request({
      agent, port, host: '127.0.0.1', method: 'POST', path: '/early', timeout: 60_000,
      headers: {
        Host: host, 'Content-Length': body.length, 'x-status': status, 'x-size': size,
        'x-fill': fill, 'x-body': body.length,
      },
    });
    const failed = (error) => resolve(`${status}: ${error.code ?? error.message}`);
    request.on('timeout', () => request.destroy(new Error('no progress for 60 s')));
    request.on('error', failed);
    request.on('response', (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('aborted', () => failed(new Error('aborted in the answer')));
      response.on('error', failed);
      response.on('end', () => {
        const got = Buffer.concat(pieces);
        const right = response.statusCode === status && got.equals(Buffer.alloc(size, fill));
        resolve(right ? 'right' : `wrong: ${response.statusCode} for ${status}, ${got.length} bytes`);
      });
    });
    // Half of the body, then the rest: the answer may come between the two.
    request.write(body.subarray(0, body.length / 2));
    setImmediate(() => request.end(body.subarray(body.length / 2)));
  });
}

async function load(port, host, requests, seed) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 50 });
  const below = random(seed);
  const outcomes = new Map();
  let left = requests;
  const lane = async () => {
    while (left-- > 0) {
      const outcome = await one(agent, port, host, below);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 50 }, lane));
  agent.destroy();
  return outcomes;
}

upstream.listen(0, '127.0.0.1', () => {
  console.log(`127.0.0.1:${upstream.address().port}`);
});
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [address, host, requests, seed] = line.split(' ');
  const direct = await load(upstream.address().port, 'direct', Number(requests), seed);
  const tunnel = await load(Number(address.split(':')[1]), host, Number(requests), seed);
  let more = 0;
  for (const outcome of new Set([...direct.keys(), ...tunnel.keys()])) {
    const [d, t] = [direct.get(outcome) ?? 0, tunnel.get(outcome) ?? 0];
    if (outcome !== 'right' && t > d) more += t - d;
    console.log(`${outcome}: direct ${d}, tunnel ${t}`);
  }
  process.exit(more === 0 && direct.get('right') > 0 ? 0 : 1);
}
