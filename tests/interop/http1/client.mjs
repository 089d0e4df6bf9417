// An HTTP client: for each line on standard input, a port, it sends a GET there and prints
// a line of JSON: status, body in hex, null for an error; then whether it would keep the
// connection.
import http from 'node:http';
import readline from 'node:readline';

function get(port) {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, path: '/', agent: false, timeout: 5000 };
    const request = http.get(options, (response) => {
      const body = [];
      response.on('data', (piece) => body.push(piece));
      response.on('end', () => {
        const hex = Buffer.concat(body).toString('hex');
        resolve(response.complete ? [response.statusCode, hex] : null);
      });
      response.on('error', () => resolve(null));
      response.on('aborted', () => resolve(null));
    });
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(null);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(null));
  });
}

for await (const port of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await get(Number(port))));
}
