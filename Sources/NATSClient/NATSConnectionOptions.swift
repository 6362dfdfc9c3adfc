/// How to reach the bus and as whom.
package struct NATSConnectionOptions: Sendable {
    /// The servers of one cluster, such as `nats://127.0.0.1:4222`; user and password or a token may stand in them.
    package var urls: [String]
    /// The name that the server shows for this connection.
    package var name: String
    /// A credentials file (user JWT and seed), as `nsc` makes it.
    package var credentialsFile: String?
    /// A file with an NKey seed; needs ``nkeyPublicKey``.
    package var nkeySeedFile: String?
    /// The public NKey (`U...`) that belongs to the seed: what stands in the server's configuration.
    package var nkeyPublicKey: String?
    /// Encryption; nil leaves it to the servers' URLs (`tls://`).
    package var tls: NATSTLSOptions?
    /// How long one attempt to connect to one server may take.
    package var connectTimeout: Duration = .seconds(2)
    /// The wait between two rounds over the servers while there is no connection. Jitter of up to a quarter is added.
    package var reconnectWait: Duration = .milliseconds(250)
    /// How long a write may wait for a server that takes no more bytes before the connection is given up.
    package var writeDeadline: Duration = .seconds(5)
    /// How often the server is asked whether it lives; when an answer takes twice as long, the
    /// connection is given up.
    package var pingInterval: Duration = .seconds(10)
    /// The most requests that may wait for an answer at one time; at most 1,048,576.
    package var maximumRequests: Int = 262_144

    package init(urls: [String], name: String) {
        self.urls = urls
        self.name = name
    }
}

/// How to encrypt the connection and whom to trust.
package struct NATSTLSOptions: Sendable {
    /// The certificates to trust, in a PEM file; nil trusts those of the system.
    package var caFile: String?
    /// The client's certificate chain, for servers that ask for one; needs ``keyFile``.
    package var certificateFile: String?
    package var keyFile: String?
    /// The name the server's certificate must carry, if it is not the host of the URL.
    package var expectedHostname: String?
    /// False accepts any server: only for tests.
    package var verify = true

    package init() {}
}
