"""`scepstream fake-microsoft`: Entra ID, Graph and Intune on 127.0.0.1, for trials and tests.

`fake.FakeMicrosoft` serves two tenants, `contoso` and `fabrikam`, over real HTTPS. A request goes
through `app` (fault, handler, journal) to `entra`, `graph` or `intune`, which check it and change
the `World`. What Microsoft decides is in pure functions: `identity` (who gets a token), `judge`
(whether a challenge fits a CSR, whether a message is well-formed). `challenge` makes and opens
challenges with keys that exist only in the process.

Other processes control it by JSON under `/_fake/` (`control`; docs/intune-fake.md has the members):

    POST   /_fake/challenges   issue a challenge
    POST   /_fake/faults       inject a fault; DELETE removes all
    POST   /_fake/answers      script the codes of a route or transaction
    POST   /_fake/devices      add or change a device; GET lists them
    POST   /_fake/users        add a user
    POST   /_fake/revocations  queue a revocation
    POST   /_fake/clock        advance the virtual clock
    POST   /_fake/tenants      change consent, token lifetime or services; GET lists the tenants
    POST   /_fake/secrets      rotate a tenant's secret
    POST   /_fake/switches     change answers that Microsoft does not document
    GET    /_fake/journal      all requests, in order, without secrets
    GET    /_fake/counts       requests by route and tenant
    GET    /_fake/notifications, /_fake/results
"""
