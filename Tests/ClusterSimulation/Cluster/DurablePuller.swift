import JobModel

/// A durable pull consumer that is there as long as its owner serves it: made anew at the start, with each new
/// connection and when it is missing; what was asked for is asked for again.
final class DurablePuller {
    let name: String
    let stream: String
    private let filter: String
    private let maxAckPending: Int
    private let connection: Connection
    private let cluster: Cluster
    private let handler: (Stored) -> Void
    private var demand = 0
    private var requests = 0
    private var generation = 0
    private var isMade = false
    private var isClosed = false

    static let ackWait = Duration.seconds(30)

    init(
        _ connection: Connection,
        name: String,
        stream: String,
        subject: String,
        maxAckPending: Int,
        handler: @escaping (Stored) -> Void
    ) {
        self.connection = connection
        cluster = connection.cluster
        self.name = name
        self.stream = stream
        filter = subject
        self.maxAckPending = maxAckPending
        self.handler = handler
    }

    func serve() {
        connection.observe { [weak self] isConnected in if isConnected { self?.make() } }
        make()
    }

    /// Nobody listens at its inbox any more: the server hears of that, and drops what was asked for.
    func close() {
        isClosed = true
        withdraw()
    }

    private func withdraw() {
        connection.request { [self] server -> Bool? in
            server.drop(pullsOf: self)
            return true
        } _: { [self] reply in
            if case .unknown = reply { connection.part.afterFailure { [self] in withdraw() } }
        }
    }

    func request(_ count: Int) {
        demand += count
        pull()
    }

    private func make() {
        guard !isClosed else { return }
        generation += 1
        isMade = false
        let generation = generation
        let configuration = ConsumerModel.Configuration(
            name: name,
            filter: filter,
            ackWait: Self.ackWait.wholeNanoseconds,
            maxAckPending: maxAckPending
        )
        connection.request { [self] server -> Bool? in
            server.recreate(configuration, of: stream, by: self)
            return true
        } _: { [self] reply in
            guard generation == self.generation, !isClosed else { return }
            guard case .answer = reply else {
                return connection.part.afterFailure { [self] in if generation == self.generation { make() } }
            }
            isMade = true
            pull()
            renew(generation)
        }
    }

    /// A request that got lost, or stood for too long, is made again.
    private func renew(_ generation: Int) {
        connection.part.after(.seconds(15)) { [self] in
            guard generation == self.generation, !isClosed else { return }
            pull()
            renew(generation)
        }
    }

    private func pull() {
        guard isMade, !isClosed, demand > 0 else { return }
        requests += 1
        let number = requests
        let count = demand
        let epoch = connection.epoch
        connection.transmit(.publish) { [self] server in
            server.pull(count, number: number, epoch: epoch, by: self, connection)
        }
    }

    /// The server says that there is no such consumer.
    func noteMissing() {
        guard isMade else { return }
        isMade = false
        connection.part.after(.milliseconds(100)) { [self] in if !isMade { make() } }
    }

    func take(_ message: Stored) {
        demand = max(0, demand - 1)
        guard !isClosed else { return }
        handler(message)
    }

    func acknowledge(_ sequence: UInt64, _ what: ServerModel<Content>.Acknowledgement) {
        connection.transmit(.publish) { [self] server in
            server.acknowledge(sequence, what, to: name, of: stream, by: connection.part)
        }
    }
}
