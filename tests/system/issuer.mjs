// A real OpenID provider for tests: clients "web" (and its secret) may have tokens (JWT) by
// client_credentials, for the audience that they name as resource, with these claims.
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const claims = JSON.parse(process.argv[3]);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'front', client_secret: 'front-secret', grant_types: ['client_credentials'],
    redirect_uris: [], response_types: [],
  }],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'read write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600,
      }),
    },
  },
  extraTokenClaims: () => claims,
});
provider.listen(port, '127.0.0.1', () => console.log('listening'));
