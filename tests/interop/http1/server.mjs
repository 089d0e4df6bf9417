// An HTTP server that prints each request as a line of JSON: port of its client, method,
// target, body in hex. The first line is its own port.
import http from 'node:http';

const server = http.createServer((request, response) => {
  const body = [];
  request.on('data', (piece) => body.push(piece));
  request.on('end', () => {
    const { method, url, socket } = request;
    const hex = Buffer.concat(body).toString('hex');
    console.log(JSON.stringify([socket.remotePort, method, url, hex]));
    response.end('ok');
  });
});
server.on('clientError', (_, socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify(server.address().port)));
