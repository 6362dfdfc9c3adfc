import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite("Control of cards") struct CardControlTests {
    @Test func aCordonedCardGetsNothingAndGivesBackWhatItHasNotClaimed() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("a")
        bench.dispatch("b")
        let attempt = bench.record("b")?.attempt
        bench.dispatch("c")
        #expect(bench.ask(.cordon, 1, reason: "new fan") == ["ok": true, "gpu_id": 1, "state": "cordoned"])
        #expect(bench.state("a") == .running, "what runs goes on")
        #expect(bench.state("b") == .enqueued)
        #expect(bench.deletions.map(\.attempt) == [attempt])
        #expect(bench.record("b")?.reason == "taken back from card 1, which is cordoned: new fan")
        #expect(bench.state("c") == .enqueued)
        #expect(bench.view(of: 1, for: "c")?["reason"] == "cordoned: new fan")
        #expect(bench.controls[1]?.cordon?.reason == "new fan")
        #expect(bench.told("gpu_cordoned")?["reason"] == "new fan")
        #expect(bench.ask(.uncordon, 1)?["state"] == "up")
        #expect(bench.state("b") == .scheduled)
        #expect(bench.controls[1]?.isEmpty == true)
        #expect(bench.announcements.last == "gpu_uncordoned")
    }

    @Test func aCordonHoldsFromTheMomentItIsAskedForAndIsAnsweredWhenItIsStored() {
        var bench = Bench()
        bench.start(1)
        bench.send(.cardRequest(CardRequest(.cordon, 1), RequestToken(5)))
        bench.submit(task("a"))
        bench.answerWrite()
        #expect(bench.writes.isEmpty && bench.state("a") == .enqueued)
        #expect(bench.replies[5] == nil)
        bench.answerControlWrite()
        #expect(bench.replies[5]?.count == 1)
        bench.send(.cardRequest(CardRequest(.uncordon, 1), RequestToken(6)))
        #expect(bench.writes.isEmpty, "it is taken back when that is stored")
        bench.answerControlWrite()
        #expect(bench.writes.map(\.record.state) == [.scheduled])
    }

    @Test func anAttemptThatIsBeingScheduledIsTakenBackWithoutARunMessage() {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        #expect(bench.writes.map(\.record.state) == [.scheduled])
        bench.send(.cardRequest(CardRequest(.cordon, 1), RequestToken(1)))
        bench.answer()
        #expect(bench.state("a") == .enqueued)
        #expect(bench.runs.isEmpty)
    }

    @Test func aCordonOutlivesItsLeader() throws {
        var bench = Bench()
        bench.start(1)
        bench.ask(.cordon, 1, reason: "new fan")
        bench.dispatch("a")
        var next = Bench.successor(of: bench, after: .seconds(1))
        next.registration(1, isReleased: false)
        next.beat(1)
        next.answer()
        #expect(next.state("a") == .enqueued)
        #expect(next.cardState(1) == "cordoned")
        #expect(next.announcements.contains("gpu_cordoned") == false, "that was told before")
        next.ask(.uncordon, 1)
        #expect(next.state("a") == .scheduled)
    }

    @Test func whatIsAskedForAgainIsAnsweredWithoutAWrite() {
        var bench = Bench()
        bench.start(1)
        bench.ask(.cordon, 1, token: 1)
        bench.send(.cardRequest(CardRequest(.cordon, 1, reason: "because"), RequestToken(2)))
        bench.send(.cardRequest(CardRequest(.clear, 1), RequestToken(3)))
        #expect(bench.controlWrites.isEmpty)
        #expect(bench.replies[2]?.first?["ok"] == true && bench.replies[3]?.first?["ok"] == true)
        bench.ask(.cordon, 1, reason: "another reason")
        #expect(bench.controls[1]?.cordon?.reason == "another reason")
        #expect(bench.controls[1]?.cordon?.since == bench.now.seconds)
    }

    @Test func requestsDuringAWriteFollowItInOneMore() {
        var bench = Bench()
        bench.start(1)
        for (token, verb) in [(1, .cordon), (2, .quarantine), (3, .uncordon)] as [(UInt64, CardRequest.Verb)] {
            bench.send(.cardRequest(CardRequest(verb, 1), RequestToken(token)))
        }
        #expect(bench.controlWrites.count == 1)
        bench.answerControlWrite()
        #expect(bench.replies.keys.sorted() == [1])
        #expect(bench.controlWrites.count == 1)
        bench.answerControlWrite()
        #expect(bench.replies.keys.sorted() == [1, 2, 3])
        #expect(bench.controls[1]?.cordon == nil && bench.controls[1]?.quarantine?.kind == .operator)
    }

    @Test func aRefusedRequestIsToldAndForgotten() {
        var bench = Bench()
        bench.start(1)
        bench.send(.cardRequest(CardRequest(.cordon, 1), RequestToken(1)))
        bench.answerControlWrite(.refused("maximum bytes exceeded"))
        #expect(bench.replies[1]?.first?["code"] == "not_stored")
        #expect(bench.notices.count == 1)
        bench.dispatch("a")
        #expect(bench.state("a") == .scheduled, "nothing was changed")
        bench.pass(.seconds(2), beating: [1])
        #expect(bench.controls[1] == nil)
        #expect(bench.ask(.cordon, 1)?["ok"] == true)
    }

    @Test func whatTheLeaderDecidedItselfIsStoredWhenTheStreamTakesItAgain() {
        var bench = Bench()
        bench.start(1)
        bench.read(1)
        guard let life = bench.life(of: 1) else { return }
        let sign = CardReading.Sign(reason: "lost", evidence: "NVML 15", severity: .quarantine)
        let reading = CardReading(gpu: 1, incarnation: life, busyPercent: 0, temperature: 50, health: [sign])
        bench.send(.reading(reading))
        bench.answerControlWrite(.refused("maximum bytes exceeded"))
        #expect(bench.controlWrites.isEmpty)
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        bench.pass(.seconds(1), beating: [1])
        #expect(bench.controls[1]?.quarantine?.kind == .health)
    }

    @Test func anotherRevisionIsTakenOverAndTheRequestFollows() {
        var bench = Bench()
        bench.start(1)
        var other = CardControl(gpu: 1, op: "other")
        other.quarantine = CardControl.Quarantine(
            kind: .operator,
            reason: "smells",
            evidence: "",
            since: 1,
            strikes: 1,
            pause: .zero
        )
        _ = bench.controls.write(other, expected: 0, at: bench.now)
        #expect(bench.ask(.cordon, 1)?["state"] == "quarantined")
        #expect(bench.controls[1]?.quarantine?.reason == "smells")
        #expect(bench.controls[1]?.cordon?.reason == "because")
        bench.controls.remove(1)
        bench.ask(.uncordon, 1)
        #expect(bench.cardState(1) == "up", "somebody removed the record, and with it what stood there")
    }

    @Test func theStreamMayDeliverOurOwnWriteBeforeItsAnswer() throws {
        var bench = Bench()
        bench.start(1)
        bench.send(.cardRequest(CardRequest(.cordon, 1), RequestToken(1)))
        let write = try #require(bench.controlWrites.first)
        let result = bench.controls.write(write.record, expected: write.expected, at: bench.now)
        bench.send(.cardControl(try #require(bench.controls.revision(1))))
        #expect(bench.replies[1]?.count == 1)
        bench.send(.controlWritten(1, write.record.op, result))
        #expect(bench.replies[1]?.count == 1)
        #expect(bench.controlWrites.count == 1, "no other write than the one that was asked for")
    }

    @Test func anUnknownCardIsRefusedWithTheNamesOfThoseThereAre() {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        let answer = bench.ask(.cordon, 7)
        #expect(answer?["code"] == "unknown_card")
        #expect(answer?["error"] == "there is no card 7; there are 1, 2")
        #expect(bench.controlWrites.isEmpty)
    }

    @Test func aBareNumberIsAmbiguousWhereCardsHaveTheNamesOfTheirNodes() {
        var bench = Bench()
        bench.start("rig1-3")
        bench.start("rig2-3")
        bench.start("rig2-13")
        let answer = bench.ask(.drain, 3)
        #expect(answer?["code"] == "ambiguous_card")
        #expect(answer?["error"] == "card 3 could be any of rig1-3, rig2-3: name it with its node")
        #expect(bench.ask(.cordon, "rig2-3")?["state"] == "cordoned")
    }

    @Test func aRecordThatCannotBeReadKeepsItsCardOutAndIsLeftAlone() {
        var bench = Bench()
        bench.start(1)
        bench.send(.cardControlUnreadable(1, sequence: 4, reason: "its format is version 2"))
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        #expect(bench.cardState(1) == "cordoned")
        #expect(bench.ask(.uncordon, 1)?["code"] == "unreadable_record")
        #expect(bench.controlWrites.isEmpty)
        bench.send(
            .cardControl(ControlRevision(record: CardControl(gpu: 1, op: "o"), sequence: 5, storedAt: bench.now))
        )
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    // MARK: drain

    @Test func aDrainWaitsForRunningJobsUntilItsTimeHasCome() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("a")
        try bench.run("b")
        #expect(bench.ask(.drain, 1, reason: "new fan", delay: .seconds(60))?["state"] == "draining")
        #expect(bench.row(1)?["reason"] == "draining: new fan; 2 jobs are left")
        #expect(bench.told("gpu_draining") != nil && bench.told("gpu_cordoned") == nil)
        bench.pass(.seconds(59), beating: [1])
        try bench.commit("a", .finish(outcome()))
        #expect(bench.evictions.isEmpty)
        bench.pass(.seconds(1), beating: [1])
        #expect(bench.evictions.map(\.job) == ["b"])
        #expect(bench.evictions.first?.code == .drained)
        #expect(bench.evictions.first?.reason == "card 1 is drained: new fan")
        bench.beat(1)
        #expect(bench.evictions.count == 2, "asked again with each heartbeat")
        try bench.commit("b", .lose(reason: "card 1 is drained"))
        bench.answer()
        bench.beat(1)
        #expect(bench.evictions.count == 2)
        #expect(bench.state("b") == .enqueued)
        #expect(bench.cardState(1) == "cordoned")
        #expect(bench.ask(.uncordon, 1)?["state"] == "up")
        #expect(bench.state("b") == .scheduled)
    }

    @Test func aDrainWithoutDeadlineWaitsForEver() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.ask(.drain, 1)
        bench.pass(.seconds(86_400), beating: [1])
        #expect(bench.evictions.isEmpty)
        #expect(bench.cardState(1) == "draining")
    }

    @Test func aDrainKeepsItsTimeAcrossLeadersAndOtherChanges() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.ask(.drain, 1, delay: .seconds(60))
        bench.pass(.seconds(20), beating: [1])
        bench.ask(.quarantine, 1)
        #expect(bench.controls[1]?.drain?.delay == .seconds(40))
        bench.pass(.seconds(20), beating: [1])
        var next = Bench.successor(of: bench, after: .seconds(5))
        next.registration(1, isReleased: false)
        next.beat(1)
        next.pass(.seconds(14), beating: [1])
        #expect(next.evictions.isEmpty)
        next.pass(.seconds(1))
        #expect(next.evictions.map(\.job) == ["a"])
        next.send(.evictionFailed(1, "a", reason: "no responders"))
        #expect(next.notices.count == 1)
    }

    @Test func anUncordonTakesADrainBack() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.ask(.drain, 1, delay: .seconds(60))
        bench.ask(.uncordon, 1)
        bench.pass(.seconds(120), beating: [1])
        #expect(bench.evictions.isEmpty)
        #expect(bench.cardState(1) == "up")
    }

    @Test func aJobThatIsBeingCancelledIsNotEvicted() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.cancel("a")
        bench.answer()
        bench.ask(.drain, 1, delay: .zero)
        bench.beat(1)
        #expect(bench.evictions.isEmpty)
        #expect(bench.kills.isEmpty == false)
    }

    // MARK: what is told

    @Test func aCardTellsEverythingThatIsKnownOfIt() throws {
        var bench = Bench()
        bench.start(1)
        var reading = CardReading(
            gpu: 1,
            incarnation: try #require(bench.life(of: 1)),
            busyPercent: 12,
            temperature: 51
        )
        (reading.pci, reading.model) = ("0000:01:00.0", "RX 580")
        (reading.power, reading.powerCap) = (80, 120)
        (reading.vramUsedBytes, reading.vramTotalBytes) = (1e9, 8e9)
        reading.temperatureLimit = 70
        for _ in 0..<130 {
            bench.now = bench.now + .seconds(5)
            bench.beat(1)
            bench.send(.reading(reading))
        }
        bench.now = bench.now + .seconds(1)
        bench.send(.cardAsked(1, RequestToken(3)))
        let answer = try #require(bench.replies[3]?.first)
        #expect(answer["pci"] == "0000:01:00.0" && answer["model"] == "RX 580")
        #expect(answer["power_w"] == 80 && answer["power_cap_w"] == 120)
        #expect(answer["temp_limit_c"] == 70 && answer["temp_c"] == 51)
        #expect(answer["vram_used_bytes"]?.doubleValue == 1e9 && answer["vram_total_bytes"]?.doubleValue == 8e9)
        #expect(answer["state"] == "up" && answer["state_age"] == 651)
        let history = try #require(answer["history"]?.arrayValue)
        #expect(history.count == 120)
        #expect(history.first == ["age": 596, "temp_c": 51, "busy_percent": 12, "power_w": 80])
        #expect(history.last?["age"] == 1)
        bench.send(.cardAsked(2, RequestToken(4)))
        #expect(bench.replies[4]?.first?["code"] == "unknown_card")
    }

    @Test func theRegistrationTellsWhatCardItIsBeforeTheFirstReading() {
        var bench = Bench()
        bench.introduce(1)
        bench.registration(1, isReleased: false, facts: ["pci": "0000:01:00.0", "card": "RX 580"])
        bench.beat(1)
        #expect(bench.row(1)?["pci"] == "0000:01:00.0" && bench.row(1)?["model"] == "RX 580")
        #expect(bench.row(1)?["temp_c"] == nil)
    }

    @Test func aStateKnowsSinceWhenItLasts() {
        var bench = Bench()
        bench.start(1)
        bench.pass(.seconds(10), beating: [1])
        bench.ask(.cordon, 1)
        bench.pass(.seconds(20), beating: [1])
        #expect(bench.row(1)?["state_age"] == 20)
        bench.pass(.seconds(20))
        #expect(bench.cardState(1) == "gone")
        #expect(bench.row(1)?["state_age"] == 5)
        #expect(bench.row(1)?["cordon"]?["reason"] == "because")
    }
}
