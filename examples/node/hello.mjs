// A service for Berth in JavaScript, with nothing but what Node.js brings along.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

// Containers of one service share their environment, and have names of their own.
const { HOSTNAME, BERTH_INSTANCE = HOSTNAME, CREDENTIALS_DIRECTORY, HOST, PORT } = process.env;
// A credential is a file; its value never stands in an environment, an argument or a log.
const greeting = readFileSync(join(CREDENTIALS_DIRECTORY, 'greeting'));

function answer(response, status, value) {
  const body = JSON.stringify(value);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

const server = createServer((request, response) => {
  const path = request.url.split('?', 1)[0];
  if (path === '/readyz') {
    answer(response, 200, { ready: true });
  } else if (path === '/node/hello') {
    answer(response, 200, {
      instance: BERTH_INSTANCE,
      credential: createHash('sha256').update(greeting).digest('hex').slice(0, 12),
      caller: request.headers['x-forwarded-for'] ?? null,
    });
  } else {
    answer(response, 404, { error: 'not found' });
  }
});

// Requests that have begun are finished; the gateway's idle connections would keep the process alive.
process.on('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
});

server.listen(Number(PORT), HOST);
