import JobModel

/// Why the outcome of a request is not known.
enum Unanswered { case notConnected, disconnected, timeout, noResponder }

enum Reply<Value> {
    case answer(Value)
    case unknown(Unanswered)
}

/// What a publish came to.
enum Outcome {
    case stored(sequence: UInt64, isDuplicate: Bool)
    case wrongLastSequence
    case refused(String)
    case unknown(Unanswered)
}

/// What a compare-and-set came to, after everything was tried.
enum Settled {
    case stored(sequence: UInt64)
    case conflict(Stored?)
    case refused(String)
    case unknown
}

/// A process's connection to the server, with the habits of the client library: nothing is published while it is
/// disconnected, requests have deadlines, and it connects again by itself.
final class Connection {
    unowned let cluster: Cluster
    unowned let part: Part
    private(set) var isConnected = false
    /// Goes up with each connection made: what belongs to an earlier one is lost.
    private(set) var epoch = 0
    private(set) var isClosed = false
    private(set) var connectedAt = Agenda.beginning
    /// Which start of the server it is, or was, connected to.
    private(set) var server = 0
    private(set) var subscriptions: [(pattern: SubjectPattern, handler: (Plain) -> Void)] = []
    private var observers: [(_ isConnected: Bool) -> Void] = []
    private var pending: [Int: (Unanswered) -> Void] = [:]
    private var lastRequest = 0
    private var outFront = Agenda.beginning
    private var inFront = Agenda.beginning

    /// How long a request waits for its answer.
    static let deadline = Duration.seconds(5)

    init(part: Part) {
        self.part = part
        cluster = part.cluster
    }

    // MARK: coming and going

    func open() { tryToConnect() }

    func close() {
        isClosed = true
        isConnected = false
        epoch += 1
        pending = [:]
        observers = []
        subscriptions = []
        cluster.server.forget(self, after: part.isCut ? cluster.chance.seconds(5...20) : .milliseconds(1))
    }

    func observe(_ observer: @escaping (_ isConnected: Bool) -> Void) { observers.append(observer) }

    private func tryToConnect() {
        guard !isClosed, !isConnected else { return }
        guard cluster.server.isUp, !part.isCut else {
            return part.after(cluster.chance.seconds(0.1...1)) { [self] in tryToConnect() }
        }
        epoch += 1
        isConnected = true
        connectedAt = cluster.now
        server = cluster.server.starts
        cluster.server.add(self)
        for observer in observers { observer(true) }
    }

    /// The way is interrupted: the connection lasts until somebody notices.
    func noteCut() {
        let epoch = epoch
        cluster.agenda.after(cluster.chance.seconds(4...12)) { [self] in
            if part.isCut, epoch == self.epoch { lose() }
        }
    }

    /// The connection is lost; what is under way on it is too.
    func lose() {
        guard isConnected, !isClosed else { return }
        isConnected = false
        epoch += 1
        cluster.server.forget(self, after: part.isCut ? cluster.chance.seconds(5...20) : .zero)
        let unanswered = pending.sorted { $0.key < $1.key }
        pending = [:]
        part.take { [self] in
            for (_, fail) in unanswered { fail(.disconnected) }
            for observer in observers { observer(false) }
        }
        part.after(cluster.chance.seconds(0.05...1)) { [self] in tryToConnect() }
    }

    /// Calls back when it is connected, or when the time is up.
    private func whenConnected(until: Timestamp, _ step: @escaping () -> Void) {
        if isConnected || cluster.now >= until { return part.after(.zero, step) }
        part.after(.milliseconds(200)) { [self] in whenConnected(until: until, step) }
    }

    // MARK: the way there and back

    enum Kind {
        /// In order with others of its connection.
        case publish
        /// Anything may overtake it.
        case request
        /// Not answered: it may get lost on the way.
        case plain
    }

    /// Sends something to the server; it is done there when and if it arrives.
    func transmit(_ kind: Kind, _ work: @escaping (SimulatedServer) -> Void) {
        guard isConnected else { return }
        let weather = cluster.weather
        if weather.isLost(part) {
            cluster.cover(.loseMessages)
            return
        }
        var due = cluster.now + cluster.travel()
        if kind != .request, !weather.isReordering {
            due = max(due, outFront)
            outFront = due
        }
        let epoch = epoch
        arrive(at: due, epoch, work)
        guard kind == .plain, weather.isDoubled() else { return }
        cluster.cover(.duplicateMessages)
        arrive(at: due + cluster.travel() * 20, epoch, work)
    }

    private func arrive(at due: Timestamp, _ epoch: Int, _ work: @escaping (SimulatedServer) -> Void) {
        cluster.agenda.at(due) { [self] in
            guard cluster.server.isUp, epoch == self.epoch || isClosed else { return }
            if let cut = part.cut, cut.outward, cut.until > cluster.now {
                return arrive(at: cut.until + cluster.travel(), epoch, work)
            }
            work(cluster.server)
        }
    }

    /// Something comes from the server to the process.
    func receive(inOrder: Bool = true, _ step: @escaping () -> Void) {
        receive(epoch, inOrder: inOrder, step)
    }

    func receive(_ epoch: Int, inOrder: Bool, _ step: @escaping () -> Void) {
        var due = cluster.now + cluster.travel()
        if inOrder, !cluster.weather.isReordering {
            due = max(due, inFront)
            inFront = due
        }
        hear(at: due, epoch, step)
    }

    private func hear(at due: Timestamp, _ epoch: Int, _ step: @escaping () -> Void) {
        cluster.agenda.at(due) { [self] in
            guard isConnected, epoch == self.epoch else { return }
            if let cut = part.cut, cut.inward, cut.until > cluster.now {
                return hear(at: cut.until + cluster.travel(), epoch, step)
            }
            part.take(step)
        }
    }

    /// Asks the server for something that is answered.
    func request<Value>(
        _ kind: Kind = .request,
        _ work: @escaping (SimulatedServer) -> Value?,
        _ done: @escaping (Reply<Value>) -> Void
    ) {
        guard isConnected else { return part.after(.zero) { done(.unknown(.notConnected)) } }
        lastRequest += 1
        let number = lastRequest
        let epoch = epoch
        pending[number] = { done(.unknown($0)) }
        part.after(Self.deadline) { [self] in pending.removeValue(forKey: number)?(.timeout) }
        transmit(kind) { [self] server in
            guard let answer = work(server) else { return }
            if cluster.weather.losesAnswer() {
                cluster.cover(.loseAnswers)
                return
            }
            receive(epoch, inOrder: kind == .publish) { [self] in
                if pending.removeValue(forKey: number) != nil { done(.answer(answer)) }
            }
        }
    }

    // MARK: plain messages

    func subscribe(_ subject: String, _ handler: @escaping (Plain) -> Void) {
        subscriptions.append((SubjectPattern(subject), handler))
    }

    func publish(_ message: Plain, on subject: String) {
        transmit(.plain) { server in _ = server.relay(message, subject) }
    }

    /// A request to whoever serves the subject.
    func ask<Answer>(
        _ subject: String,
        deadline: Duration,
        _ message: (ReturnAddress<Answer>) -> Plain,
        _ done: @escaping (Answer?) -> Void
    ) {
        guard isConnected else { return part.after(.zero) { done(nil) } }
        lastRequest += 1
        let number = lastRequest
        pending[number] = { _ in done(nil) }
        part.after(deadline) { [self] in pending.removeValue(forKey: number)?(.timeout) }
        let address = ReturnAddress<Answer>(connection: self, epoch: epoch) { [self] answer in
            if pending.removeValue(forKey: number) != nil { done(answer) }
        }
        let message = message(address)
        transmit(.plain) { [self] server in
            if server.relay(message, subject) { return }
            receive(address.epoch, inOrder: true) { [self] in pending.removeValue(forKey: number)?(.noResponder) }
        }
    }

    func answer<Answer>(_ address: ReturnAddress<Answer>, _ answer: Answer) {
        transmit(.plain) { _ in
            address.connection.receive(address.epoch, inOrder: true) { address.take(answer) }
        }
    }
}

// MARK: JetStream

extension Connection {
    func publish(
        _ content: Content,
        to subject: String,
        messageID: String? = nil,
        expected: UInt64? = nil,
        _ done: @escaping (Outcome) -> Void
    ) {
        request(.publish) { [part] server -> StreamModel<Content>.Answer? in
            server.publish(content, to: subject, messageID: messageID, expected: expected, by: part)
        } _: { reply in
            switch reply {
            case .answer(.stored(let sequence, let isDuplicate)):
                done(.stored(sequence: sequence, isDuplicate: isDuplicate))
            case .answer(.wrongLastSequence): done(.wrongLastSequence)
            case .answer(.full): done(.refused("maximum messages exceeded"))
            case .unknown(let why): done(.unknown(why))
            }
        }
    }

    /// Sends the identical message again until the server has said yes or no, or the time is up.
    func publishUntilDefinite(
        _ content: Content,
        to subject: String,
        messageID: String? = nil,
        expected: UInt64? = nil,
        after first: Outcome? = nil,
        pause: Duration = .milliseconds(50),
        until: Timestamp,
        while isWanted: @escaping () -> Bool = { true },
        _ done: @escaping (Outcome) -> Void
    ) {
        func judge(_ outcome: Outcome) {
            guard isWanted() else { return }
            guard case .unknown(let why) = outcome, cluster.mutant != .takesSilenceForRefusal else {
                if case .unknown = outcome { return done(.refused("no answer")) }
                return done(outcome)
            }
            guard cluster.now < until else { return done(outcome) }
            let again = { [self] in
                guard isWanted() else { return }
                guard cluster.now < until else { return done(outcome) }
                publishUntilDefinite(
                    content,
                    to: subject,
                    messageID: messageID,
                    expected: expected,
                    pause: min(pause * 2, .seconds(1)),
                    until: until,
                    while: isWanted,
                    done
                )
            }
            if why == .notConnected || why == .disconnected {
                whenConnected(until: until, again)
            } else {
                part.after(pause * (0.5 + cluster.chance.unit() / 2), again)
            }
        }
        if let first { return judge(first) }
        publish(content, to: subject, messageID: messageID, expected: expected, judge)
    }

    /// Moves a record by compare-and-set, to the end.
    func compareAndSet(
        _ content: Content,
        to subject: String,
        stream: String,
        expected: UInt64,
        after first: Outcome? = nil,
        until: Timestamp,
        while isWanted: @escaping () -> Bool = { true },
        _ done: @escaping (Settled) -> Void
    ) {
        let sent: UInt64? = cluster.mutant == .writesWithoutExpectation && content.record != nil ? nil : expected
        publishUntilDefinite(
            content,
            to: subject,
            expected: sent,
            after: first,
            until: until,
            while: isWanted
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence, _): done(.stored(sequence: sequence))
            case .refused(let reason): done(.refused(reason))
            case .unknown: done(.unknown)
            case .wrongLastSequence: resolve(content, subject, stream, until: until, while: isWanted, done)
            }
        }
    }

    /// The same for who holds an attempt: nothing is sent a second time unless the record still stands at `expected` as
    /// this attempt's.
    func compareAndSet(
        _ record: JobRecord,
        to subject: String,
        stream: String,
        expected: UInt64,
        holding attempt: AttemptID,
        isRepetition: Bool = false,
        _ done: @escaping (Settled) -> Void
    ) {
        let look = { [self] in
            last(of: subject, in: stream) { [self] reply in
                let again = { [self] in
                    compareAndSet(
                        record,
                        to: subject,
                        stream: stream,
                        expected: expected,
                        holding: attempt,
                        isRepetition: true,
                        done
                    )
                }
                switch reply {
                case .unknown: part.after(cluster.chance.seconds(0.05...1), again)
                case .answer(nil): done(.conflict(nil))
                case .answer(let stored?):
                    if stored.body.op == record.op { return done(.stored(sequence: stored.sequence)) }
                    guard stored.sequence == expected, stored.body.record?.attempt == attempt else {
                        return done(.conflict(stored))
                    }
                    send(record, to: subject, expected: expected, isRepetition: true, again, done)
                }
            }
        }
        if isRepetition { return look() }
        send(record, to: subject, expected: expected, isRepetition: false, look, done)
    }

    private func send(
        _ record: JobRecord,
        to subject: String,
        expected: UInt64,
        isRepetition: Bool,
        _ look: @escaping () -> Void,
        _ done: @escaping (Settled) -> Void
    ) {
        let sent: UInt64? = cluster.mutant == .writesWithoutExpectation ? nil : expected
        publish(.record(record), to: subject, expected: sent) { [self] outcome in
            switch outcome {
            case .stored(let sequence, _): done(.stored(sequence: sequence))
            case .refused(let reason): done(.refused(reason))
            case .wrongLastSequence: part.after(isRepetition ? .milliseconds(50) : .zero, look)
            case .unknown:
                if cluster.mutant == .takesSilenceForRefusal { return done(.refused("no answer")) }
                part.after(cluster.chance.seconds(0.05...1), look)
            }
        }
    }

    private func resolve(
        _ content: Content,
        _ subject: String,
        _ stream: String,
        until: Timestamp,
        while isWanted: @escaping () -> Bool,
        _ done: @escaping (Settled) -> Void
    ) {
        guard isWanted() else { return }
        guard cluster.now < until else { return done(.unknown) }
        last(of: subject, in: stream) { [self] reply in
            switch reply {
            case .answer(nil): done(.conflict(nil))
            case .answer(let stored?):
                done(stored.body.op == content.op ? .stored(sequence: stored.sequence) : .conflict(stored))
            case .unknown:
                part.after(cluster.chance.seconds(0.05...1)) { [self] in
                    resolve(content, subject, stream, until: until, while: isWanted, done)
                }
            }
        }
    }

    func last(of subject: String, in stream: String, _ done: @escaping (Reply<Stored?>) -> Void) {
        request { server in
            .some(server.model[stream]?.last(of: subject))
        } _: {
            done($0)
        }
    }

    func message(at sequence: UInt64, in stream: String, _ done: @escaping (Reply<Stored?>) -> Void) {
        request { server in
            .some(server.model[stream]?.message(at: sequence))
        } _: {
            done($0)
        }
    }

    func next(of subject: String, from: UInt64, in stream: String, _ done: @escaping (Reply<Stored?>) -> Void) {
        let pattern = SubjectPattern(subject)
        request { server in
            .some(server.model[stream]?.next(from: from, matching: pattern))
        } _: {
            done($0)
        }
    }

    func delete(_ sequence: UInt64, from stream: String, _ done: @escaping (Reply<Bool>) -> Void) {
        request { [part] server in
            server.remove(sequence, from: stream, by: part)
        } _: {
            done($0)
        }
    }
}
