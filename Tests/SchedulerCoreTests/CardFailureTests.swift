import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite("Cards on which jobs fail") struct CardFailureTests {
    /// Cards 1 to `count`, all idle and alike.
    private func bench(_ count: Int = 4, policy: SchedulerPolicy = SchedulerPolicy()) -> Bench {
        var bench = Bench(policy: policy)
        for gpu in 1...count { bench.start(GPUID(integerLiteral: gpu)) }
        return bench
    }

    /// Runs a job on a card to its end, without retry.
    private func run(
        _ id: JobID,
        on gpu: GPUID,
        _ ended: AttemptOutcome,
        _ bench: inout Bench
    ) throws {
        try bench.run(id, gpu: gpu)
        try bench.commit(id, ended.succeeded ? .finish(ended) : .fail(ended))
        bench.answer()
    }

    @Test func aCardOnWhichJobsFailThatSucceedElsewhereIsQuarantined() throws {
        var bench = bench()
        for id in ["a", "b", "c"] as [JobID] { try run(id, on: 1, outcome(exit: 3), &bench) }
        #expect(bench.controls[1] == nil, "nothing has shown yet that it is not the jobs")
        try run("d", on: 2, outcome(), &bench)
        let quarantine = try #require(bench.controls[1]?.quarantine)
        #expect(quarantine.kind == .failures && quarantine.reason == "3 jobs failed on it alone")
        #expect(quarantine.evidence.hasPrefix("a, b, c: "))
        bench.dispatch("e", gpu: 1)
        #expect(bench.state("e") == .enqueued)
        bench.pass(.seconds(30), beating: [1, 2, 3, 4])
        #expect(bench.probes == [1])
    }

    @Test(arguments: [
        AttemptOutcome(code: .exit, returnCode: 126), AttemptOutcome(code: .exit, returnCode: 127),
        AttemptOutcome(code: .spawn), AttemptOutcome(code: .workerFault), AttemptOutcome(code: .overheated),
    ])
    func whatIsNotTheCardsFaultNeverCounts(_ ended: AttemptOutcome) throws {
        var bench = bench()
        for id in ["a", "b", "c", "d", "e"] as [JobID] { try run(id, on: 1, ended, &bench) }
        try run("f", on: 2, outcome(), &bench)
        #expect(bench.controls[1] == nil)
    }

    @Test(arguments: [
        AttemptOutcome(code: .signal, returnCode: -11), AttemptOutcome(code: .timeout),
        AttemptOutcome(code: .exit, returnCode: 1),
    ])
    func whatMayBeTheCardsFaultDoes(_ ended: AttemptOutcome) throws {
        var bench = bench()
        for id in ["a", "b", "c"] as [JobID] { try run(id, on: 1, ended, &bench) }
        try run("f", on: 2, outcome(), &bench)
        #expect(bench.controls[1]?.quarantine?.kind == .failures)
    }

    @Test func aSweepThatFailsEverywhereQuarantinesNothing() throws {
        var bench = bench(12)
        for index in 0..<200 {
            let gpu = GPUID(integerLiteral: 1 + index % 12)
            try run(JobID(stringLiteral: "j\(index)"), on: gpu, outcome(exit: 2), &bench)
        }
        #expect(bench.controls.revisions.isEmpty)
    }

    @Test func onProbationOneFailureIsEnoughAndTheNextProbeComesLater() throws {
        var bench = bench()
        for id in ["a", "b", "c"] as [JobID] { try run(id, on: 1, outcome(exit: 3), &bench) }
        try run("d", on: 2, outcome(), &bench)
        bench.pass(.seconds(30), beating: [1, 2, 3, 4])
        bench.endProbe(1)
        #expect(bench.controls[1]?.probation?.strikes == 1)
        try run("e", on: 1, outcome(exit: 3), &bench)
        #expect(bench.controls[1]?.quarantine == nil)
        try run("f", on: 3, outcome(), &bench)
        let quarantine = try #require(bench.controls[1]?.quarantine)
        #expect(quarantine.strikes == 2 && quarantine.pause == .seconds(60))
        #expect(quarantine.reason == "a job failed on it alone" && quarantine.evidence.hasPrefix("e: "))
        bench.ask(.clear, 1)
        for id in ["g", "h", "i"] as [JobID] { try run(id, on: 1, outcome(exit: 3), &bench) }
        try run("k", on: 2, outcome(), &bench)
        #expect(bench.controls[1]?.quarantine?.strikes == 1, "a person's word begins the count anew")
    }

    @Test func failuresTakeNoMoreThanAQuarterOfThePool() throws {
        var bench = bench(8)
        for gpu in [1, 2, 3] as [GPUID] {
            for index in 0..<3 { try run(JobID(stringLiteral: "j\(gpu)-\(index)"), on: gpu, outcome(exit: 3), &bench) }
        }
        try run("x", on: 4, outcome(), &bench)
        #expect(bench.controls[1]?.quarantine != nil && bench.controls[2]?.quarantine != nil)
        #expect(bench.controls[3] == nil)
        #expect(bench.announcements.filter { $0 == "quarantine_limit" }.count == 1)
        try run("more", on: 3, outcome(exit: 3), &bench)
        try run("y", on: 4, outcome(), &bench)
        #expect(bench.announcements.filter { $0 == "quarantine_limit" }.count == 1, "told once")
        bench.ask(.clear, 1)
        try run("again", on: 3, outcome(exit: 3), &bench)
        try run("z", on: 4, outcome(), &bench)
        #expect(bench.controls[3]?.quarantine?.kind == .failures)
    }

    @Test func aSignOfSicknessKnowsNoLimit() {
        var bench = bench(3)
        for gpu in [1, 2, 3] as [GPUID] { bench.readSigns(gpu, .quarantine) }
        #expect(bench.controls.revisions.compactMap(\.record.quarantine?.kind) == [.health, .health, .health])
    }

    @Test func oneCardOfASmallPoolMayBeQuarantinedAndNoneIfThatIsTurnedOff() throws {
        for (most, isQuarantined) in [(25, true), (0, false)] {
            var policy = SchedulerPolicy()
            policy.quarantineMax = most
            var bench = bench(2, policy: policy)
            for id in ["a", "b", "c"] as [JobID] { try run(id, on: 1, outcome(exit: 3), &bench) }
            try run("d", on: 2, outcome(), &bench)
            #expect((bench.controls[1]?.quarantine != nil) == isQuarantined)
        }
    }

    @Test func aHealthSignOverFailuresMakesRoomForAnotherCard() throws {
        var bench = bench(2)
        for id in ["a", "b", "c"] as [JobID] { try run(id, on: 1, outcome(exit: 3), &bench) }
        try run("d", on: 2, outcome(), &bench)
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.quarantine?.kind == .health)
        #expect(bench.controls[1]?.quarantine?.strikes == 1)
    }

    // MARK: retries

    @Test func aRetryTriesAnotherCardFirst() throws {
        var bench = bench(2)
        bench.read(1, busy: 0, temperature: 20)
        bench.read(2, busy: 90, temperature: 70)
        try bench.run("a")
        #expect(bench.record("a")?.gpu == 1)
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(1)))
        bench.pass(.seconds(1))
        #expect(bench.record("a")?.gpu == 2, "though the other one has the better score")
    }

    @Test func aRetryWaitsForAnotherCardForAWhileOnly() throws {
        var bench = bench(2)
        bench.dispatch("long", gpu: 2)
        try bench.commit("long", .claim)
        try bench.run("a")
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(1)))
        bench.pass(.milliseconds(30_999), beating: [1, 2])
        #expect(bench.state("a") == .enqueued)
        #expect(bench.view(of: 1, for: "a")?["reason"] == "avoided: the last attempt failed on it")
        bench.dispatch("b")
        #expect(bench.record("b")?.gpu == 1, "others are not kept from the card")
        try bench.commit("b", .claim)
        try bench.commit("b", .finish(outcome()))
        bench.answer()
        #expect(bench.state("a") == .enqueued)
        bench.pass(.milliseconds(1), beating: [1, 2])
        #expect(bench.state("a") == .scheduled)
        #expect(bench.record("a")?.gpu == 1)
    }

    @Test func aRetryGoesBackToItsCardIfThereIsNoOther() throws {
        var bench = bench(2)
        bench.ask(.cordon, 2)
        try bench.run("a")
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(1)))
        bench.pass(.seconds(1), beating: [1, 2])
        #expect(bench.state("a") == .scheduled)
        try bench.commit("a", .claim)
        try bench.commit("a", .finish(outcome()))
        bench.answer()
        try bench.run("b", gpu: 1)
        try bench.commit("b", .retry(outcome(exit: 1), delay: .seconds(1)))
        bench.ask(.uncordon, 2)
        bench.pass(.seconds(1), beating: [1, 2])
        #expect(bench.record("b")?.gpu == 1, "a pinned job has one card")
    }

    @Test func aJobThatAvoidsOneCardAfterTheOtherIsNeverLost() throws {
        var bench = bench(2)
        bench.dispatch("a", retries: 50)
        for _ in 0..<10 {
            try bench.commit("a", .claim)
            let failedOn = bench.record("a")?.gpu
            try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(1)))
            bench.pass(.seconds(1), beating: [1, 2])
            #expect(bench.state("a") == .scheduled)
            #expect(bench.record("a")?.gpu != failedOn)
        }
        bench.pass(.seconds(31), beating: [1, 2])
        #expect(bench.state("a") == .scheduled, "taken back, since nobody claimed it, and placed again")
    }
}
