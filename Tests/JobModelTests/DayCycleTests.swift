import Testing

import JobModel

@Suite("Day and night") struct DayCycleTests {
    @Test(arguments: [
        ("07-22", 7...21), ("7-8", 7...7), ("00-24", 0...23), ("0-24", 0...23),
    ])
    func aWindowHoldsItsHours(text: String, day: ClosedRange<Int>) throws {
        let window = try #require(DayWindow(text))
        for hour in 0...23 { #expect(window.phase(atHour: hour) == (day.contains(hour) ? .day : .night)) }
    }

    @Test func aWindowMayGoOverMidnight() throws {
        let window = try #require(DayWindow("22-07"))
        #expect((0...23).filter { window.phase(atHour: $0) == .day } == [0, 1, 2, 3, 4, 5, 6, 22, 23])
    }

    @Test(arguments: [
        "", "7", "7-", "-7", "07:00-22:00", "7-25", "24-7", "7-0", "7-7", "+7-22", "7--22", "a-b", "007-22",
    ])
    func anythingElseIsNone(text: String) { #expect(DayWindow(text) == nil) }

    @Test func whatSomebodyAskedForLastsUntilTheWindowChanges() throws {
        var cycle = DayCycle(window: try #require(DayWindow("07-22")))
        #expect(cycle.phase(atHour: 12) == .day)
        cycle.ask(.night, atHour: 12)
        #expect(cycle.phase(atHour: 12) == .night)
        #expect(cycle.phase(atHour: 21) == .night)
        #expect(cycle.phase(atHour: 22) == .night)
        // The window's day has ended, so the next one is a day again.
        #expect(cycle.phase(atHour: 7) == .day)
        cycle.ask(.day, atHour: 23)
        #expect(cycle.phase(atHour: 3) == .day)
        #expect(cycle.phase(atHour: 7) == .day)
        #expect(cycle.phase(atHour: 22) == .night)
    }

    @Test func aPhaseIsReadFromItsMessage() throws {
        #expect(try DayPhase(parsing: Array(#"{"phase":"night","v":1}"#.utf8)) == .night)
        for text in ["", "{}", #"{"phase":"dusk"}"#, #"{"phase":1}"#] {
            #expect(throws: MalformedMessage.self) { try DayPhase(parsing: Array(text.utf8)) }
        }
    }

    @Test(arguments: CardHold.Code.allCases)
    func aHoldSurvivesTheWire(code: CardHold.Code) throws {
        let hold = CardHold(code, reason: "x")
        #expect(CardHold(hold.json) == hold)
        #expect(hold.endsJobs?.isGivenBack != false)
        // A newer worker's hold is one all the same, and ends nothing.
        let newer = try #require(CardHold(["code": "asbestos"]))
        #expect(newer.code == "asbestos" && newer.endsJobs == nil)
        #expect(CardHold(["reason": "x"]) == nil)
    }
}
