// The npm package `ngrok`, the wrapper, with our agent in the place of ngrok's.
//
// usage: wrapper.mjs MODULES AGENT-DIR CONFIG EDGE-HTTP-PORT UPSTREAM-PORT
// (AGENT-DIR has our program under the name that it looks for, `ngrok`)

import { createRequire } from 'node:module';
import http from 'node:http';

const [modules, dir, configPath, edge, upstream] = process.argv.slice(2);
const ngrok = createRequire(`${modules}/`)('ngrok');
const check = (name, holds) => console.log((holds ? 'ok    ' : 'FAIL  ') + name);

const visit = (url, path) => new Promise((resolve, reject) => {
  const headers = { Host: new URL(url).host };
  http.get({ host: '127.0.0.1', port: edge, path, headers }, (answer) => {
    let text = '';
    answer.on('data', (piece) => { text += piece; });
    answer.on('end', () => resolve(text));
  }).on('error', reject);
});

const common = { binPath: () => dir, configPath };
const url = await ngrok.connect({ ...common, proto: 'http', addr: Number(upstream) });
check('connect', await visit(url, '/b') === 'hello /b');
const api = ngrok.getApi();
const { tunnels } = await api.listTunnels();
check('listTunnels', tunnels.length === 1 && tunnels[0].public_url === url);
const { name } = tunnels[0];
check('tunnelDetail', (await api.tunnelDetail(name)).name === name);
const { requests } = await api.listRequests({ limit: 5 });
check('listRequests', requests.length === 1 && requests[0].request.uri === '/b');
check('requestDetail', (await api.requestDetail(requests[0].id)).id === requests[0].id);
check('replayRequest', await api.replayRequest(requests[0].id, name) === true);
check('deleteAllRequests', await api.deleteAllRequests() === true);
try {
  await api.startTunnel({ proto: 'http', addr: Number(upstream), name });
  check('a taken name', false);
} catch (error) {
  check('a taken name', error.body.error_code === 102 && error.body.msg === 'invalid tunnel configuration');
}
await ngrok.disconnect(url);
check('disconnect', (await api.listTunnels()).tunnels.length === 0);
await ngrok.kill();
check('kill', true);
