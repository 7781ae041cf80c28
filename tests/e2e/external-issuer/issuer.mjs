// An OpenID provider of somebody else's make, on a free port of the loopback address, over https.
// usage: node issuer.mjs CERTIFICATE KEY AUDIENCE     prints its issuer URL on one line, then serves until it is ended
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const [certificate, key, audience] = process.argv.slice(2);
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `https://127.0.0.1:${server.address().port}`;

const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const client = (client_id) => ({
  client_id,
  client_secret: 'a secret of a test, worth nothing',
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: 'ES256',
});

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...signing, alg: 'ES256', use: 'sig', kid: randomUUID() }] },
  clients: [client('clerk'), client('nobody')],
  scopes: ['shop'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: () => ({
        audience,
        scope: 'shop',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  extraTokenClaims: (_, token) => ({ groups: token.clientId === 'clerk' ? ['clerk'] : [] }),
});
server.on('request', provider.callback());
console.log(issuer);
