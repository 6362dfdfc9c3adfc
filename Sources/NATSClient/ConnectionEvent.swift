/// What happens to a connection, in order. Observers are called one after the other on one thread and must not block.
package enum ConnectionEvent: Sendable {
    /// Connected for the first time.
    case connected(ServerInfo)
    /// Connected again; subscriptions stand again, pull requests and push consumers of the old connection are gone.
    case reconnected(ServerInfo)
    /// The connection was lost; all requests in flight have ended as unknown. Reconnecting goes on.
    case disconnected(NATSError?)
    /// Closed by its owner; the last event.
    case closed
    /// Something went wrong beside any call, such as a refused subscription, dropped messages or bad credentials.
    case asyncError(NATSError)
}

/// What is known of the server at the moment of connecting. Its version and name come by
/// ``NATSConnection/serverSoftware(deadline:)``.
package struct ServerInfo: Sendable, Equatable {
    package let serverID: String
    /// The address that this connection went to.
    package let url: String
    /// The largest message that the server takes, in bytes, headers included.
    package let maxPayload: Int
}

/// How often something has come from the server: two that differ show that it lived in between.
package struct ConnectionArrivals: Sendable, Equatable {
    /// Which connection it was, of those made one after the other.
    package let epoch: UInt64
    package let reads: UInt64

    package init(epoch: UInt64, reads: UInt64) {
        self.epoch = epoch
        self.reads = reads
    }
}

/// What a server says about itself when asked.
package struct ServerSoftware: Sendable, Equatable {
    package let name: String
    /// Such as `2.9.10`.
    package let version: String
    package let hasJetStream: Bool

    package init(name: String, version: String, hasJetStream: Bool) {
        self.name = name
        self.version = version
        self.hasJetStream = hasJetStream
    }

    /// Whether the version is at least this one; false if it cannot be read.
    package func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
        let parts = version.split(whereSeparator: { $0 == "." || $0 == "-" }).prefix(2).compactMap { Int($0) }
        return parts.count == 2 && (parts[0], parts[1]) >= (major, minor)
    }
}

/// Keeps an observer registered until `cancel` or the end of the connection.
package struct ObserverToken: Sendable {
    let number: UInt
    private weak let connection: NATSConnection?

    init(number: UInt, connection: NATSConnection) {
        self.number = number
        self.connection = connection
    }

    /// No event is delivered afterwards, except one that is being delivered right now.
    package func cancel() { connection?.removeObserver(number) }
}
