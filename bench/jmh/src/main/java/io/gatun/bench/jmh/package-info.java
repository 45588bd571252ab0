/** What is called from Java, under JMH. */
package io.gatun.bench.jmh;
