import JobModel
import Testing
import WorkerCore

/// Thousands of jobs through one core, everything that can happen happening in a random order from a seed.
struct RandomWalkTests {
    @Test(arguments: UInt64(1)...20)
    func promisesHold(seed: UInt64) throws {
        var walk = try Walk(seed: seed)
        for _ in 0..<2000 { try walk.step() }
        try walk.finish()
        #expect(walk.ended > 20, "the walk went somewhere")
    }
}

private struct Walk {
    let bench: Bench
    var chance: IdentifierSource
    let policy: WorkerPolicy
    var names = 0
    var demand = 0
    /// Messages that wait for their ack, by number.
    var unacked: [UInt64: RunMessage] = [:]
    /// Attempts whose process lives.
    var processes: [AttemptID: JobID] = [:]
    var everStarted: Set<AttemptID> = []
    var closed: Set<AttemptID> = []
    var isFinished = false
    var isHeld = false
    var ended: Int { closed.count }

    init(seed: UInt64) throws {
        chance = IdentifierSource(seed: seed)
        policy = WorkerPolicy(slots: 1 + Int(seed % 4), grace: .seconds(1), drain: .seconds(5))
        bench = try Bench(policy: policy)
        bench.handle(.began([]))
    }

    mutating func step() throws {
        let claims = askedClaims
        let wasHeld = isHeld
        switch chance.next() % 24 {
        case 0...3: try deliver()
        case 4: try redeliver()
        case 5: bench.pass(.milliseconds(Int64(chance.next() % 3000)))
        case 6: try interfere()
        case 7 where !processes.isEmpty: try askToCancel()
        case 8: bench.handle(.reconnected)
        case 9 where !processes.isEmpty: try askToEvict()
        case 10: changeTheCard()
        case 11: bench.handle(.probeAsked(RequestToken(chance.next())))
        default: try act()
        }
        if wasHeld && isHeld { #expect(askedClaims <= claims, "nothing is claimed for a card that is held") }
        check()
    }

    /// Claims that the core has asked for and nobody has carried out.
    private var askedClaims: Int {
        bench.todo.count { if case .write(_, let record, _) = $0 { record.state == .running } else { false } }
    }

    private mutating func changeTheCard() {
        switch chance.next() % 4 {
        case 0: bench.handle(.cardFailed(reason: "XID 63"))
        case 1: hold(CardHold.Code.allCases.randomElement(using: &chance).map { CardHold($0, reason: "so") })
        default: hold(nil)
        }
    }

    private mutating func hold(_ hold: CardHold?) {
        isHeld = hold != nil
        bench.handle(.cardHeld(hold))
    }

    private mutating func askToEvict() throws {
        let attempt = try #require(randomProcess())
        let job = try #require(processes[attempt])
        bench.handle(.evictAsked(job, attempt, .drained, reason: "drained", RequestToken(chance.next())))
    }

    private mutating func deliver() throws {
        guard demand > 0 else { return }
        demand -= 1
        names += 1
        let message = try bench.dispatch("job-\(names)", timeout: .seconds(2), retries: Int(chance.next() % 3))
        unacked[bench.lastMessage + 1] = message
        _ = bench.deliver(message)
    }

    private mutating func redeliver() throws {
        guard let number = unacked.keys.sorted().randomElement(using: &chance), let message = unacked[number] else {
            return
        }
        _ = bench.deliver(message, number: number)
    }

    /// The leader moves a record: takes back, closes as lost, asks to cancel.
    private mutating func interfere() throws {
        guard let message = unacked.keys.sorted().randomElement(using: &chance).flatMap({ unacked[$0] }) else { return }
        let job = message.record.id
        guard let record = bench.records[job]?.record, record.attempt == message.attempt else { return }
        switch record.state {
        case .scheduled: try bench.move(job, .takeBack(reason: "not claimed in time"))
        case .running where chance.next() % 2 == 0: try bench.move(job, .lose(reason: "not heard of"))
        case .running where !record.cancelRequested: try bench.move(job, .requestCancel(reason: "by hand"))
        default: break
        }
    }

    private mutating func askToCancel() throws {
        let attempt = try #require(processes.keys.sorted { $0.text < $1.text }.randomElement(using: &chance))
        bench.handle(.cancelAsked(try #require(processes[attempt]), attempt, RequestToken(chance.next())))
    }

    /// Carries out one of the things that the core has asked for, or ends a process.
    private mutating func act() throws {
        if chance.next() % 4 == 0, let attempt = randomProcess() {
            processes[attempt] = nil
            return bench.handle(.ended(attempt, ProcessEnd(exit: exit())))
        }
        guard !bench.todo.isEmpty else { return }
        let index = Int(chance.next() % UInt64(bench.todo.count))
        switch bench.todo[index] {
        case .prepare, .readRecord, .write: try actOnStore()
        default: try carryOut(bench.todo.remove(at: index))
        }
    }

    private mutating func actOnStore() throws {
        if chance.next() % 10 == 0, let (attempt, record) = takeWrite() {
            return bench.handle(.writeEnded(attempt, record.op, .refused("full")))
        }
        let objection = chance.next() % 15 == 0 ? TaskObjection(code: .forbidden, reason: "no") : nil
        if let event = bench.takeStoreAction(objection) { bench.handle(event) }
    }

    private mutating func takeWrite() -> (AttemptID, JobRecord)? {
        bench.take { if case .write(let attempt, let record, _) = $0 { (attempt, record) } else { nil } }
    }

    private mutating func carryOut(_ action: WorkerAction) throws {
        switch action {
        case .pull(let count): demand += count
        case .ack(let token): try acknowledge(token)
        case .nak(let token, _): unacked[token.number] = nil
        case .start(let attempt, let record): start(attempt, record)
        case .terminate(let attempt) where chance.next() % 2 == 0, .kill(let attempt):
            guard processes.removeValue(forKey: attempt) != nil else { return }
            bench.handle(.ended(attempt, ProcessEnd(exit: .signal(9))))
        case .examine(let attempt):
            if chance.next() % 4 == 0 { changeTheCard() }
            bench.handle(.examined(attempt))
        case .report(let report): bench.handle(.reported(report.attempt))
        case .tell(let attempt, let events):
            #expect(bench.records.values.allSatisfy { $0.record.attempt != attempt || $0.record.state != .running })
            #expect(!events.isEmpty)
            bench.handle(.told(attempt))
        case .close(let attempt, _): #expect(closed.insert(attempt).inserted, "closed once")
        case .finish: isFinished = true
        case .probe: bench.handle(.probeEnded(WorkerAnswer(ok: chance.next() % 2 == 0, evidence: "tried")))
        case .announceReady, .inProgress, .fence, .terminate, .refuse, .reply, .heartbeat, .armTimer, .notice: break
        case .prepare, .readRecord, .write: Issue.record("not for here")
        }
    }

    private mutating func start(_ attempt: AttemptID, _ record: JobRecord) {
        #expect(everStarted.insert(attempt).inserted, "an attempt is started once")
        #expect(record.owner == bench.incarnation)
        if chance.next() % 10 == 0 {
            return bench.handle(.startFailed(attempt, .spawn, reason: "no such program"))
        }
        processes[attempt] = record.id
        bench.handle(.started(attempt, directory: "/"))
    }

    /// Never an ack before the record has left the attempt behind.
    private mutating func acknowledge(_ token: MessageToken) throws {
        guard let message = unacked.removeValue(forKey: token.number) else { return }
        guard let record = bench.records[message.record.id]?.record, record.attempt == message.attempt else { return }
        #expect(record.state != .running && record.state != .scheduled, "acknowledged while it is \(record.state)")
    }

    private mutating func randomProcess() -> AttemptID? {
        processes.keys.sorted { $0.text < $1.text }.randomElement(using: &chance)
    }

    private mutating func exit() -> ProcessEnd.Exit {
        chance.next() % 3 == 0 ? .code(Int(chance.next() % 3)) : .code(0)
    }

    private func check() {
        #expect(processes.count <= policy.slots, "slots are never over-booked")
        let told = Set(bench.core.running.map(\.attempt))
        #expect(processes.keys.allSatisfy { told.contains($0) }, "every process is in the heartbeat")
    }

    /// Stops the worker; everything in hand reaches its end.
    mutating func finish() throws {
        bench.handle(.stopAsked)
        for _ in 0..<200_000 where !isFinished {
            bench.pass(.milliseconds(20))
            try act()
            check()
        }
        #expect(isFinished, "every attempt reaches an end")
        #expect(processes.isEmpty && bench.core.running.isEmpty)
        for record in bench.records.values.map(\.record) where record.state == .running {
            Issue.record("job \(record.id) is left running")
        }
    }
}
