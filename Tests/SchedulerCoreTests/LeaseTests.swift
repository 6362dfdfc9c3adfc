import JobModel
import SchedulerCore
import Testing

@Suite struct LeaseTests {
    @Test func aFreeLeaseIsTaken() throws {
        var bench = LeaseBench()
        bench.begin()
        #expect(bench.log == ["read"])
        bench.observe(nil)
        #expect(bench.write?.expected == 0)
        bench.pass(.milliseconds(200))
        bench.answer(.stored(1))
        #expect(bench.log.last == "lead until 9.0", "counted from when the write began, less a tenth")
        #expect(bench.trustedUntil == bench.start + .seconds(9))
    }

    @Test func aReleasedLeaseIsTakenAtOnce() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(bench.lease(of: "other", 7, isReleased: true))
        #expect(bench.write?.expected == 7)
    }

    @Test func aStandbyTimesTheUnchangedSequenceOnItsOwnClock() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(bench.lease(of: "other", 7))
        bench.pass(.seconds(6))
        bench.observe(bench.lease(of: "other", 7))
        bench.pass(.milliseconds(3_999))
        #expect(bench.write == nil)
        bench.pass(.milliseconds(1))
        #expect(bench.write?.expected == 7)
    }

    @Test func aRenewalStartsTheTimingAnew() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(bench.lease(of: "other", 7))
        bench.pass(.seconds(6))
        bench.observe(bench.lease(of: "other", 8))
        bench.pass(.milliseconds(9_999))
        #expect(bench.write == nil)
        bench.observe(bench.lease(of: "other", 7))
        bench.pass(.milliseconds(1))
        #expect(bench.write?.expected == 8)
    }

    @Test func theLeaseIsRenewedAtAThirdAndTrustedFromTheBeginOfTheRenewal() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.milliseconds(3_333))
        #expect(bench.write == nil)
        bench.pass(.milliseconds(1))
        #expect(bench.write?.expected == 1)
        bench.pass(.seconds(2))
        bench.answer(.stored(2))
        #expect(bench.trustedUntil == bench.start + .seconds(10) / 3 + .seconds(9))
        #expect(bench.log.last?.hasPrefix("extend") == true)
    }

    @Test func aLeaseThatIsNotRenewedInTimeIsGivenUp() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.milliseconds(8_999))
        #expect(bench.isLeading)
        bench.pass(.milliseconds(1))
        #expect(!bench.isLeading)
        #expect(bench.log.last == "read")
        bench.observe(bench.lease(of: "other", 2))
        #expect(bench.writes == 1, "the renewal that was not answered")
    }

    @Test func anAnswerThatComesAfterTheLeaseEndedDoesNotMakeALeader() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(nil)
        bench.now = bench.now + .seconds(9)
        bench.answer(.stored(1))
        #expect(!bench.isLeading)
        #expect(bench.log.last == "read")
        bench.observe(bench.mine(1))
        #expect(bench.write?.expected == 1, "it is ours still, and is renewed")
        bench.answer(.stored(2))
        #expect(bench.isLeading)
    }

    @Test func aConflictMakesAStandby() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(nil)
        bench.answer(.conflict(bench.lease(of: "other", 4)))
        #expect(!bench.isLeading)
        bench.pass(.milliseconds(9_999))
        #expect(bench.write == nil)
        bench.pass(.milliseconds(1))
        #expect(bench.write?.expected == 4)
    }

    @Test func aLeaderWhoseLeaseWasTakenStandsDown() {
        var bench = LeaseBench()
        bench.lead()
        bench.observe(bench.lease(of: "other", 5))
        #expect(!bench.isLeading)
        bench.pass(.milliseconds(9_999))
        #expect(bench.write == nil)
        bench.pass(.milliseconds(1))
        #expect(bench.write?.expected == 5)
    }

    @Test func aRenewalThatConflictsEndsTheLead() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.seconds(4))
        bench.answer(.conflict(bench.lease(of: "other", 5)))
        #expect(!bench.isLeading)
    }

    @Test func aFailedRenewalIsReadAndTriedAgainWhileTheLeaseLasts() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.seconds(4))
        bench.answer(.failed)
        #expect(bench.isLeading)
        #expect(bench.write == nil, "not at once: what refuses would be asked without end")
        bench.pass(.seconds(1))
        #expect(bench.log.last == "read")
        bench.observe(bench.mine(1))
        #expect(bench.write?.expected == 1)
        bench.answer(.stored(2))
        #expect(bench.isLeading)
        bench.pass(.seconds(2))
        #expect(bench.isLeading)
    }

    @Test func aFailedRenewalThatWasStoredAllTheSameIsGoneOnWith() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.seconds(4))
        bench.answer(.failed)
        bench.pass(.seconds(1))
        bench.observe(bench.mine(2))
        #expect(bench.isLeading)
        #expect(bench.write?.expected == 2)
    }

    @Test func aFailedRenewalThatComesThroughLateDoesNotEndTheLead() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.seconds(4))
        bench.answer(.failed)
        bench.pass(.seconds(1))
        bench.observe(bench.mine(1))
        bench.answer(.conflict(bench.mine(2)))
        #expect(bench.isLeading)
        #expect(bench.write?.expected == 2)
        bench.answer(.stored(3))
        bench.pass(.seconds(2))
        #expect(bench.isLeading)
    }

    @Test func aLeaseThatCannotBeTakenIsTriedAgainAfterAWhile() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(nil)
        bench.answer(.failed)
        #expect(bench.write == nil)
        bench.pass(.seconds(1))
        #expect(bench.log.last == "read")
        bench.observe(nil)
        #expect(bench.write?.expected == 0)
    }

    @Test func aLeaderThatIsToldToStopReleasesTheLease() {
        var bench = LeaseBench()
        bench.lead()
        bench.send(.stop)
        #expect(!bench.isLeading)
        #expect(bench.write?.expected == 1)
        #expect(bench.write?.lease.isReleased == true)
        bench.answer(.stored(2))
        #expect(bench.write == nil)
        bench.pass(.seconds(60))
        #expect(!bench.isLeading)
        #expect(bench.write == nil)
    }

    @Test func aLeaderThatIsToldToStopWhileItRenewsReleasesWhatItGot() {
        var bench = LeaseBench()
        bench.lead()
        bench.pass(.seconds(4))
        bench.send(.stop)
        #expect(bench.writes == 1)
        bench.answer(.stored(2))
        #expect(!bench.isLeading)
        #expect(bench.write?.expected == 2)
        #expect(bench.write?.lease.isReleased == true)
    }

    @Test func aStandbyThatIsToldToStopWhileItTakesTheLeaseReleasesIt() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(nil)
        bench.send(.stop)
        bench.answer(.stored(1))
        #expect(!bench.isLeading)
        #expect(bench.write?.expected == 1)
        #expect(bench.write?.lease.isReleased == true)
    }

    @Test func aStandbyThatIsToldToStopTakesNothing() {
        var bench = LeaseBench()
        bench.begin()
        bench.observe(bench.lease(of: "other", 7))
        bench.send(.stop)
        bench.pass(.seconds(60))
        bench.observe(bench.lease(of: "other", 7, isReleased: true))
        #expect(bench.write == nil)
    }
}

/// One lease core by hand.
struct LeaseBench {
    enum Answer {
        case stored(UInt64)
        case conflict(LeaseCore.Revision?)
        case failed
    }

    private static let holder: Incarnation = "me"
    let start = Timestamp(nanoseconds: 0)
    var now = Timestamp(nanoseconds: 0)
    private var core = LeaseCore(
        holder: holder,
        host: "host",
        processID: 1,
        duration: .seconds(10),
        ids: IdentifierSource(seed: 5)
    )
    private(set) var log: [String] = []
    private(set) var write: (lease: LeaderLease, expected: UInt64)?
    /// How many writes were asked for and not answered.
    private(set) var writes = 0
    private(set) var trustedUntil: Timestamp?
    private var timer: Timestamp?

    /// What the shell would act by.
    var isLeading: Bool { trustedUntil.map { now < $0 } ?? false }

    mutating func send(_ event: LeaseCore.Event) {
        for action in core.handle(event, at: now) {
            switch action {
            case .write(let lease, let expected):
                write = (lease, expected)
                writes += 1
                log.append("write")
            case .read: log.append("read")
            case .lead(let until):
                trustedUntil = until
                log.append("lead until \(until.seconds)")
            case .extend(let until):
                trustedUntil = until
                log.append("extend until \(until.seconds)")
            case .standDown:
                trustedUntil = nil
                log.append("stand down")
            case .armTimer(let time): timer = time
            }
        }
    }

    mutating func begin() { send(.timerFired) }

    /// Takes the lease, at sequence 1.
    mutating func lead() {
        begin()
        observe(nil)
        answer(.stored(1))
    }

    mutating func observe(_ revision: LeaseCore.Revision?) { send(.observed(revision)) }

    mutating func answer(_ answer: Answer) {
        guard let op = write?.lease.op else { return }
        write = nil
        writes -= 1
        switch answer {
        case .stored(let sequence): send(.stored(op, sequence: sequence))
        case .conflict(let revision): send(.conflict(op, revision))
        case .failed: send(.failed(op))
        }
    }

    mutating func pass(_ duration: Duration) {
        let end = now + duration
        while let due = timer, due <= end {
            now = max(now, due)
            timer = nil
            send(.timerFired)
        }
        now = end
    }

    func lease(of holder: Incarnation, _ sequence: UInt64, isReleased: Bool = false) -> LeaseCore.Revision {
        LeaseCore.Revision(
            lease: LeaderLease(
                holder: holder,
                host: "there",
                processID: 2,
                duration: .seconds(10),
                isReleased: isReleased,
                op: "op"
            ),
            sequence: sequence
        )
    }

    func mine(_ sequence: UInt64) -> LeaseCore.Revision { lease(of: Self.holder, sequence) }
}

extension LeaseBench: CustomStringConvertible {
    var description: String { "a bench" }
}
