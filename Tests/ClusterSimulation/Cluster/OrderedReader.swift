import JobModel

/// Follows a stream in order, as an ordered consumer does: the last message of each subject first, which is no
/// snapshot since writers go on, and what comes then.
final class OrderedReader {
    enum Start { case lastPerSubject, new }

    enum Event {
        case message(Stored)
        case caughtUp(last: UInt64)
        /// The stream ends before what was handed over: it starts over.
        case rolledBack
        /// It goes on after a time in which nothing was heard.
        case recreated
    }

    let stream: String
    private let filter: SubjectPattern
    private let start: Start
    private let connection: Connection
    private let cluster: Cluster
    private let handler: (Event) -> Void
    private var position: UInt64 = 0
    private var isNew: Bool
    private var generation = 0
    private var isStanding = false
    private var hasRun = false
    private var isBusy = false
    private var isClosed = false

    private enum CatchUp: Equatable { case looking, sampling, waiting(UInt64), done }
    private var catchUp = CatchUp.looking

    init(
        _ connection: Connection,
        stream: String,
        filter: String,
        start: Start = .lastPerSubject,
        handler: @escaping (Event) -> Void
    ) {
        self.connection = connection
        cluster = connection.cluster
        self.stream = stream
        self.filter = SubjectPattern(filter)
        self.start = start
        self.handler = handler
        isNew = start == .new
        cluster.server.add(self)
        connection.observe { [weak self] isConnected in
            self?.isStanding = false
            if isConnected { self?.create() }
        }
        if connection.isConnected { create() }
    }

    func close() {
        isClosed = true
        cluster.server.remove(self)
    }

    private func create() {
        guard !isClosed else { return }
        generation += 1
        let generation = generation
        catchUp = .looking
        connection.request { [stream] server in
            server.model[stream]?.lastSequence
        } _: { [self] reply in
            guard generation == self.generation, !isClosed else { return }
            guard case .answer(let last) = reply else {
                if connection.isConnected { connection.part.after(.milliseconds(250)) { [self] in create() } }
                return
            }
            if last < position {
                position = 0
                handler(.rolledBack)
            }
            if isNew { position = last }
            isNew = false
            if hasRun { handler(.recreated) }
            hasRun = true
            isStanding = true
            isBusy = false
            pump()
        }
    }

    /// Sends the next message, if there is one and nothing is on its way.
    func pump() {
        guard isStanding, !isBusy, !isClosed, cluster.server.isUp else { return }
        guard let next = cluster.server.model[stream]?.next(from: position + 1, matching: filter) else { return look() }
        isBusy = true
        let generation = generation
        connection.receive { [self] in
            guard generation == self.generation, !isClosed else { return }
            isBusy = false
            position = next.sequence
            handler(.message(next))
            checkCaughtUp()
            pump()
        }
    }

    /// There seems to be no more: the last matching message is looked up, since writers go on.
    private func look() {
        guard catchUp == .looking else { return }
        catchUp = .sampling
        let generation = generation
        connection.request { [stream, filter] server in
            server.model[stream]?.last(matching: filter)?.sequence ?? 0
        } _: { [self] reply in
            guard generation == self.generation, !isClosed, catchUp == .sampling else { return }
            if case .answer(let last) = reply {
                catchUp = .waiting(last)
                checkCaughtUp()
            } else {
                catchUp = .looking
            }
            lookAgain(generation)
        }
    }

    /// With the next heartbeat: a message that was waited for may have been deleted meanwhile.
    private func lookAgain(_ generation: Int) {
        guard catchUp != .done else { return }
        connection.part.after(.seconds(5)) { [self] in
            guard generation == self.generation, catchUp != .done, catchUp != .sampling else { return }
            catchUp = .looking
            pump()
        }
    }

    private func checkCaughtUp() {
        guard case .waiting(let last) = catchUp, position >= last else { return }
        catchUp = .done
        handler(.caughtUp(last: position))
    }
}
