/// The wait after something failed that may work before long: half a second to one and a half.
package enum Pause {
    /// Returns early when its task is cancelled; the caller looks at that itself.
    package static func afterFailure() async {
        do {
            try await Task.sleep(for: .milliseconds(Int64.random(in: 500...1500)))
        } catch {
            // Cancelled: see above.
        }
    }
}
