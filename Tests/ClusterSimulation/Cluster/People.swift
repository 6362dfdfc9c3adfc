import JobModel
import WireJSON

/// The people of a pool, and their scripts: they submit, cancel, take cards out, and keep a journal of what they have
/// submitted.
final class People: Part {
    private var chanceOfTheirs: Chance { cluster.chance }
    /// Submissions that were accepted and not seen to have ended.
    private var journal: [JobID: [UInt8]] = [:]
    private var names: PoolNames { cluster.names }

    func start() {
        guard !isRunning else { return }
        begin()
        keepReconciling()
    }

    // MARK: submitting

    /// - Parameter patience: how long it is tried; what is not answered by then is tried again later.
    func submit(_ bytes: [UInt8], id: JobID?, isCore: Bool = false) {
        if isCore {
            return connection.publish(.submission(bytes), to: names.enqueueSubject) { _ in }
        }
        if cluster.mutant == .acceptsWithoutAck, let id { accepted(id, bytes, stored: false) }
        connection.publishUntilDefinite(
            .submission(bytes),
            to: names.enqueueSubject,
            messageID: id.map { "sub:\($0)" },
            until: cluster.now + .seconds(30)
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence, let isDuplicate):
                guard let id else { return }
                if !isDuplicate { return accepted(id, bytes, stored: true) }
                judgeDuplicate(id, bytes, sequence)
            case .refused, .unknown, .wrongLastSequence:
                if cluster.mutant == .acceptsWithoutAck { return }
                after(chanceOfTheirs.seconds(2...10)) { [self] in submit(bytes, id: id) }
            }
        }
    }

    private func accepted(_ id: JobID, _ bytes: [UInt8], stored: Bool) {
        journal[id] = bytes
        if stored || cluster.mutant == .acceptsWithoutAck {
            // The answer travels: what it tells of may have moved on, but is not gone.
            after(stored ? .zero : .seconds(10)) { [self] in cluster.ledger.notePromised(id) }
        }
    }

    /// The server tells duplicates by their id alone: whether the content is the same is seen in what it holds.
    private func judgeDuplicate(_ id: JobID, _ bytes: [UInt8], _ sequence: UInt64) {
        connection.message(at: sequence, in: names.workQueueStream) { [self] reply in
            if case .answer(let stored?) = reply, case .submission(let first) = stored.body {
                if first == bytes { accepted(id, bytes, stored: true) }
                return
            }
            connection.last(of: names.state(id), in: names.jobsStream) { [self] reply in
                guard case .answer(let stored?) = reply, let record = stored.body.record else { return }
                if record.submission == bytes { accepted(id, bytes, stored: true) }
            }
        }
    }

    /// `maestroctl reconcile`: what the cluster does not know any more is submitted again.
    private func keepReconciling() {
        after(.seconds(30)) { [self] in
            for (id, bytes) in journal.sorted(by: { $0.key < $1.key }) {
                if cluster.ledger.isOver(id) { journal[id] = nil } else { reconcile(id, bytes) }
            }
            keepReconciling()
        }
    }

    private func reconcile(_ id: JobID, _ bytes: [UInt8]) {
        connection.last(of: names.state(id), in: names.jobsStream) { [self] reply in
            guard case .answer(nil) = reply, journal[id] != nil, !cluster.ledger.isOver(id) else { return }
            submit(bytes, id: id)
        }
    }

    // MARK: watching

    /// A plain subscriber hears of writes also when they are refused: it reads before it believes.
    func hear(_ record: JobRecord) {
        guard record.state.isTerminal, connection.isConnected else { return }
        connection.receive { [self] in
            connection.last(of: names.state(record.id), in: names.jobsStream) { [self] reply in
                if case .answer(let stored?) = reply, stored.body.record?.state.isTerminal == true {
                    journal[record.id] = nil
                }
            }
        }
    }

    /// A direct read may be answered by a replica that lags behind.
    func readStale(_ job: JobID) -> JobState? {
        cluster.history(of: job).dropLast().last
    }

    // MARK: asking

    func cancel(_ job: JobID) {
        cluster.tell("somebody asks to cancel \(job)", job)
        connection.ask(names.request("cancel"), deadline: .seconds(5), { .request(.cancel(job), $0) }) {
            [self] (answer: JSON?) in
            guard let answer, answer["ok"]?.boolValue == true, answer["state"]?.stringValue == "cancelled" else {
                return
            }
            cluster.tell("somebody hears that \(job) is cancelled", job)
            cluster.ledger.noteToldCancelled(job)
        }
    }

    func ask(_ request: PersonalRequest) {
        let verb: String
        switch request {
        case .cancel: verb = "cancel"
        case .why: verb = "why"
        case .status: verb = "status"
        case .card(let what, let gpu, _):
            verb = what
            cluster.tell("somebody asks to \(what) card \(gpu)")
        }
        connection.ask(names.request(verb), deadline: .seconds(5), { .request(request, $0) }) { (_: JSON?) in }
    }
}
