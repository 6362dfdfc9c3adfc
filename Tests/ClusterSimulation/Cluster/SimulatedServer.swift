import JobModel

/// The nats-server of a simulated cluster: the streams as the model keeps them, and who is connected.
final class SimulatedServer {
    private unowned let cluster: Cluster
    private(set) var model: ServerModel<Content>
    private(set) var isUp = true
    /// How often it was started: each start is another server to its clients.
    private(set) var starts = 1
    /// How far its wall clock is off.
    var wallOffset = Duration.zero
    private var connections: [Connection] = []
    private var pulls: [String: [Pull]] = [:]
    private var pumpPlanned: [String: Timestamp] = [:]
    private var readers: [OrderedReader] = []
    private var lastSync = Agenda.beginning

    /// A request for messages of a durable consumer.
    private struct Pull {
        let puller: DurablePuller
        let connection: Connection
        let epoch: Int
        let number: Int
        var remaining: Int
    }

    init(cluster: Cluster, version: ServerModel<Content>.Version) {
        self.cluster = cluster
        model = ServerModel(version: version)
        let names = cluster.names
        func make(_ name: String, _ subjects: [String], queue: Bool = false, one: Bool = false) {
            var configuration = StreamModel<Content>.Configuration(name: name, subjects: subjects)
            configuration.isWorkQueue = queue
            if one { configuration.maxPerSubject = 1 }
            if name == names.eventsStream { configuration.discardsNew = false }
            model.make(configuration)
        }
        make(names.jobsStream, [names.statePrefix + ".*"], one: true)
        make(names.controlStream, ["gpu.ctl.*"], one: true)
        make(names.runStream, [names.runPrefix + ".*"], queue: true)
        make(names.workQueueStream, [names.enqueueSubject], queue: true)
        make(names.eventsStream, [names.done, names.error, names.resultPrefix + ".*"])
    }

    /// The server's wall clock.
    private var clock: Int64 { (cluster.now + wallOffset).nanoseconds }

    /// Lets go of everybody.
    func dismantle() {
        connections = []
        readers = []
        pulls = [:]
    }

    // MARK: messages

    /// - Returns: nil when the server says nothing at all.
    func publish(
        _ content: Content,
        to subject: String,
        messageID: String?,
        expected: UInt64?,
        by part: Part
    ) -> StreamModel<Content>.Answer? {
        guard let name = model.stream(taking: subject) else { return nil }
        let before = model[name]?.last(of: subject)
        guard
            let (stream, answer) = model.publish(
                content,
                to: subject,
                messageID: messageID,
                expected: expected,
                at: clock
            )
        else { return nil }
        hint(content, subject)
        if case .stored(let sequence, false) = answer, let stored = model[stream]?.message(at: sequence) {
            cluster.ledger.noteStored(stored, after: before, in: stream, by: part)
            wake(stream)
        }
        if cluster.weather.syncsAlways { sync() }
        return answer
    }

    /// Plain subscribers see what is published, also when the stream refuses it.
    private func hint(_ content: Content, _ subject: String) {
        guard let record = content.record else { return }
        cluster.people.hear(record)
    }

    func remove(_ sequence: UInt64, from stream: String, by part: Part) -> Bool {
        guard let message = model[stream]?.message(at: sequence),
            model.remove(sequence, from: stream, at: clock)
        else { return false }
        cluster.ledger.noteRemoved(message, from: stream, by: part)
        return true
    }

    /// - Returns: whether anybody listens.
    func relay(_ message: Plain, _ subject: String) -> Bool {
        var isHeard = false
        for connection in connections {
            for subscription in connection.subscriptions where subscription.pattern.matches(subject) {
                isHeard = true
                connection.receive { subscription.handler(message) }
            }
        }
        return isHeard
    }

    private func wake(_ stream: String) {
        for reader in readers where reader.stream == stream { reader.pump() }
        for name in pulls.keys.sorted() where pulls[name]?.first?.puller.stream == stream { pump(name) }
    }

    // MARK: connections

    func add(_ connection: Connection) {
        connections.removeAll { $0 === connection }
        connections.append(connection)
    }

    /// The server notices that a connection is gone.
    func forget(_ connection: Connection, after delay: Duration) {
        let epoch = connection.epoch
        cluster.agenda.after(delay) { [self] in
            for name in pulls.keys.sorted() {
                pulls[name]?.removeAll { $0.connection === connection && $0.epoch < epoch }
            }
            if connection.epoch == epoch || connection.isClosed { connections.removeAll { $0 === connection } }
        }
    }

    // MARK: readers

    func add(_ reader: OrderedReader) { readers.append(reader) }
    func remove(_ reader: OrderedReader) { readers.removeAll { $0 === reader } }

    // MARK: durable consumers

    /// Makes a consumer anew: what is not acknowledged comes again.
    func recreate(_ configuration: ConsumerModel.Configuration, of stream: String, by puller: DurablePuller) {
        let name = configuration.name
        _ = model.deleteConsumer(name, of: stream)
        let ended = pulls.removeValue(forKey: name) ?? []
        for pull in ended where pull.puller !== puller {
            pull.connection.receive(pull.epoch, inOrder: true) { pull.puller.noteMissing() }
        }
        model.make(configuration, of: stream)
    }

    func loseConsumer(_ name: String, of stream: String) {
        guard model.deleteConsumer(name, of: stream) else { return }
        for pull in pulls.removeValue(forKey: name) ?? [] {
            pull.connection.receive(pull.epoch, inOrder: true) { pull.puller.noteMissing() }
        }
    }

    func pull(_ count: Int, number: Int, epoch: Int, by puller: DurablePuller, _ connection: Connection) {
        let name = puller.name
        guard model.consumer(name, of: puller.stream) != nil else {
            return connection.receive(epoch, inOrder: true) { puller.noteMissing() }
        }
        pulls[name]?.removeAll { $0.puller === puller && $0.number < number }
        pulls[name, default: []].append(
            Pull(puller: puller, connection: connection, epoch: epoch, number: number, remaining: count)
        )
        pump(name)
    }

    func drop(pullsOf puller: DurablePuller) { pulls[puller.name]?.removeAll { $0.puller === puller } }

    func acknowledge(
        _ sequence: UInt64,
        _ what: ServerModel<Content>.Acknowledgement,
        to name: String,
        of stream: String,
        by part: Part
    ) {
        let message = model[stream]?.message(at: sequence)
        model.acknowledge(sequence, what, to: name, of: stream, at: clock)
        if let message, model[stream]?.message(at: sequence) == nil {
            cluster.ledger.noteRemoved(message, from: stream, by: part)
        }
        pump(name)
    }

    private func pump(_ name: String) {
        guard isUp else { return }
        while let pull = pulls[name]?.first {
            let stream = pull.puller.stream
            guard let (delivery, message) = model.pull(name, of: stream, at: clock) else {
                return planPump(name, model.consumer(name, of: stream)?.nextDeadline)
            }
            if pull.remaining <= 1 {
                pulls[name]?.removeFirst()
            } else {
                pulls[name]?[0].remaining -= 1
            }
            if delivery.count > 1 { cluster.cover("redelivery") }
            pull.connection.receive(pull.epoch, inOrder: true) { pull.puller.take(message) }
        }
    }

    /// Looks again when a message is due again.
    private func planPump(_ name: String, _ deadline: Int64?) {
        guard let deadline else { return }
        let due = max(Timestamp(nanoseconds: deadline) + .zero - wallOffset, cluster.now + .milliseconds(1))
        if let planned = pumpPlanned[name], planned > cluster.now, planned <= due { return }
        pumpPlanned[name] = due
        cluster.agenda.at(due) { [self] in
            guard pumpPlanned[name] == due else { return }
            pumpPlanned[name] = nil
            pump(name)
        }
    }

    // MARK: what goes wrong

    /// As a stream with a max age would, whatever stands there.
    func removeRecords(olderThan age: Duration) {
        let horizon = clock - age.wholeNanoseconds
        for message in model[cluster.names.jobsStream]?.messages ?? [] where message.timestamp < horizon {
            _ = remove(message.sequence, from: cluster.names.jobsStream, by: cluster.people)
        }
    }

    func setOutOfSpace(_ isOut: Bool, _ stream: String) { model.setOutOfSpace(isOut, stream) }

    /// Everything so far is on the disk.
    func sync() {
        for name in model.streamNames { model.sync(name) }
    }

    private func goDown() {
        isUp = false
        pulls = [:]
        let lost = connections
        connections = []
        for connection in lost { connection.lose() }
    }

    /// SIGKILL, and a start after a while: the last acknowledgements may come undone.
    func kill(downFor duration: Duration) {
        guard isUp else { return }
        cluster.tell("the server is killed for \(duration.text)")
        goDown()
        cluster.agenda.after(duration) { [self] in
            let before = messageCount
            model.restart(undoingRemovalsSince: clock - 1_500_000_000) { cluster.chance.hit(0.5) }
            if messageCount > before { cluster.cover("an acknowledgement undone") }
            comeUp()
        }
    }

    private var messageCount: Int { model.streamNames.reduce(0) { $0 + (model[$1]?.messages.count ?? 0) } }

    /// The power is cut: each stream may lose of what was not synced, and not all of them as much.
    func cutPower(downFor duration: Duration) {
        guard isUp else { return }
        cluster.tell("the power of the server is cut for \(duration.text)")
        goDown()
        cluster.agenda.after(duration) { [self] in
            for name in model.streamNames {
                let changes = model[name]?.unsyncedChanges ?? 0
                let lost = cluster.chance.hit(0.3) ? 0 : min(changes, cluster.chance.number(below: 40))
                model.rollBack(name, changes: lost)
                if lost > 0 { cluster.tell("\(name) has lost \(lost) of its last \(changes) changes") }
                model.sync(name)
            }
            cluster.ledger.noteRolledBack()
            comeUp()
        }
    }

    private func comeUp() {
        isUp = true
        starts += 1
        cluster.tell("the server is back")
    }
}

extension Timestamp {
    fileprivate static func - (time: Timestamp, duration: Duration) -> Timestamp { time + (.zero - duration) }
}
