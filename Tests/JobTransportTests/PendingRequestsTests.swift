import JobTransport
import Testing

@Suite struct PendingRequestsTests {
    @Test func aRequestIsAnsweredOnce() throws {
        let pending = PendingRequests(limit: 2)
        let first = try #require(pending.add("a"))
        let unheard = try #require(pending.add(nil))
        #expect(first != unheard)
        #expect(pending.take(unheard) == nil)
        #expect(pending.take(first) == "a")
        #expect(pending.take(first) == nil)
    }

    @Test func tooManyAreTurnedAwayUntilOneIsAnswered() throws {
        let pending = PendingRequests(limit: 1)
        let first = try #require(pending.add("a"))
        #expect(pending.add("b") == nil)
        _ = pending.take(first)
        #expect(pending.add("b") != nil)
        pending.removeAll()
        #expect(pending.add("c") != nil)
    }
}
