/// Waits before something is tried again. They return early when their task is cancelled; the caller looks at that itself.
package enum Pause {
    /// After something failed that may work before long: half a second to one and a half.
    package static func afterFailure() async { await sleep(milliseconds: 500...1500) }

    /// For something that is nearly there: a few milliseconds.
    package static func briefly() async { await sleep(milliseconds: 2...5) }

    private static func sleep(milliseconds: ClosedRange<Int64>) async {
        do {
            try await Task.sleep(for: .milliseconds(Int64.random(in: milliseconds)))
        } catch {
            // Cancelled: see above.
        }
    }
}
