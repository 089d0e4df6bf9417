// An OpenID provider on loopback with the package oidc-provider and its own pages for the login.
//
// usage: provider.mjs PACKAGES PORT REDIRECT_URI

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, port, redirect] = process.argv.slice(2);
const path = createRequire(`${packages}/x.js`).resolve("oidc-provider");
const { Provider } = await import(pathToFileURL(path));

const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{ client_id: "edge", client_secret: "a secret: 100%", redirect_uris: [redirect] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  // Loopback addresses are not used in production.
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@a.example`, email_verified: true, name: id }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
